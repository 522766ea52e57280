"""A node with its agent as a process: with one network, a script as its plugin, and an API server."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.rigs.agent import ShimOutcome, call, script, start, until
from tests.rigs.fake_api import FakeApi

TOKEN = "sesame-open-up"
PLUGIN = """
echo "$CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME" >>{place}/calls
[ -e {place}/hang ] && {{ echo $$ >{place}/h; mv {place}/h {place}/hanging; sleep 60; }}
[ -e {place}/slow ] && sleep 0.5
[ -e {place}/broken ] && {{ echo '{{"code": 110, "msg": "no luck"}}'; exit 1; }}
[ $CNI_COMMAND = ADD ] || exit 0
echo '{{"cniVersion": "1.0.0", "interfaces": [{{"name": "eth0", "sandbox": "'$CNI_NETNS'"}}],
       "ips": [{{"address": "10.1.0.5/24", "interface": 0}}]}}'
"""


class Node:
    """A node with one network, a script as its plugin, and an API server with the pods p0, p1, …"""

    def __init__(self, place: Path, binary: Path, api: FakeApi) -> None:
        self.place, self.binary, self.api = place, binary, api
        self.socket = place / "agent.sock"
        (place / "bin").mkdir()
        (place / "net.d").mkdir()
        script(place / "bin", "plug", PLUGIN.format(place=place))
        (place / "net.d" / "10-net.conf").write_text('{"cniVersion": "1.0.0", "name": "net", "type": "plug"}')
        self.conf: dict[str, Any] = {
            "cniVersion": "1.0.0", "name": "genie", "type": "genie", "delegate_timeout": 20,
            "policy": {"k8s_api_root": api.url, "k8s_auth_token": TOKEN},
            "conf_dir": str(place / "net.d"), "state_dir": str(place / "records"),
        }  # fmt: skip
        self.log = ""
        api.pod("p", annotations={"cni": "net"})

    @asynccontextmanager
    async def agent(self, *options: str, prefix: tuple[str, ...] = ()) -> AsyncIterator[asyncio.subprocess.Process]:
        """A running agent; its log is in `log` after its end. prefix: a command that starts it."""
        (self.place / "genie.conf").write_text(json.dumps(self.conf))
        out = self.place / f"agent-{len(list(self.place.glob('agent-*')))}.log"
        with out.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *prefix, sys.executable, "-m", "genie", "agent", "--socket", str(self.socket), "--node", "node-1",
                "--conf", str(self.place / "genie.conf"), *(options or ("--listen", "")), stderr=log,
            )  # fmt: skip
        try:
            await until(lambda: process.returncode is not None or '"READY"' in out.read_text(), 30)
            assert process.returncode is None, out.read_text()
            yield process
        finally:
            if process.returncode is None:
                process.terminate()
                await asyncio.wait_for(process.wait(), 40)
            self.log = out.read_text()

    def env(self, verb: str, pod: str, container: str, netns: str = "/var/run/netns/x") -> dict[str, str]:
        return {
            "CNI_COMMAND": verb, "CNI_CONTAINERID": container, "CNI_NETNS": netns,
            "CNI_PATH": str(self.place / "bin"),
            "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={pod};K8S_POD_UID=uid-{pod}",
        }  # fmt: skip

    async def call(self, verb: str, pod: str = "p", container: str = "c1", **more: str) -> ShimOutcome:
        return await call(self.binary, self.socket, stdin=self.stdin, **self.env(verb, pod, container, **more))

    async def start(self, verb: str, pod: str = "p", container: str = "c1") -> asyncio.subprocess.Process:
        return await start(self.binary, self.socket, stdin=self.stdin, **self.env(verb, pod, container))

    @property
    def stdin(self) -> bytes:
        return json.dumps(self.conf).encode()

    @property
    def calls(self) -> list[str]:
        path = self.place / "calls"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def records(self) -> list[str]:
        return [path.name for path in (self.place / "records").glob("*.json")]

    def set(self, flag: str, on: bool = True) -> None:
        if on:
            (self.place / flag).touch()
        else:
            (self.place / flag).unlink()

    def lines(self, msg: str) -> list[dict[str, Any]]:
        return [line for line in map(json.loads, self.log.splitlines()) if line["msg"] == msg]
