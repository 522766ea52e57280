"""Faulty API servers: slow, interrupted, refusing, endless, with more and larger objects than a node needs.

As a program, this is the server of the other parts: it has the pods of its argument, and its standard input selects its
faults.
"""

from __future__ import annotations

import json
import os
import re
import socketserver
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.faults.world import Node, drop_netns, make_netns, node
from tests.rigs import fake_api

STATUS = (401, 403, 409, 410, 429, 500)
TROUBLE = (
    *(f"status {code}" for code in STATUS),
    *("down", "silent", "slow", "cut off", "garbage", "no objects", "watches close"),
)
MEMORY = 192  # MiB: the limit of the DaemonSet
NADS = "/apis/k8s.cni.cncf.io/v1/network-attachment-definitions"
PLUGIN = """[ "$CNI_COMMAND" = ADD ] || exit 0
echo '{"cniVersion": "1.0.0", "interfaces": [{"name": "'$CNI_IFNAME'", "sandbox": "'$CNI_NETNS'"}],
       "ips": [{"address": "10.1.0.5/24", "interface": 0}]}'"""


def run(*, only: str = "") -> list[str]:
    """Try each fault with one agent; returns the failures."""
    faults: list[str] = []
    pods = {"known": "net", **{f"after{number}": "net" for number in range(len(TROUBLE))}}
    with node(pods=pods) as here:
        here.script("net", PLUGIN)
        here.start_agent()
        before = here.inventory()
        for number, kind in enumerate(TROUBLE):
            if only in ("", kind):
                faults += [f"{kind}: {fault}" for fault in _under(here, kind, f"after{number}")]
        faults += here.left(before)
        faults += [f"log: {line}" for line in here.odd_lines()[:5]]
    return faults


def _under(here: Node, kind: str, later: str) -> list[str]:
    """ADD and DEL of a known and of an unknown pod during the fault, and one afterwards."""
    faults: list[str] = []
    netns = make_netns("known")
    here.trouble(kind)
    time.sleep(0.3)  # the agent's watches notice it
    with ThreadPoolExecutor(4) as pool:
        unknown = pool.submit(here.call, "ADD", "unknown", "unknown", netns, 120)
        known = here.call("ADD", "known", "known", netns, timeout=30)
        gone = here.call("DEL", "known", "known", netns, timeout=30)
        lost = unknown.result()
    print(f"{kind}: ADD {known.seconds:.1f} s {known.message[:80]}; of an unknown pod {lost.message[:120]}")
    faults += [f"ADD of a pod that the agent knows failed: {known.message}"] if known.status else []
    faults += [f"DEL failed: {gone.message}"] if gone.status else []
    faults += ["ADD of a pod that nobody has succeeded"] if lost.status == 0 else []
    here.trouble("")
    after = here.call("ADD", later, later, netns, timeout=60)
    faults += [f"ADD afterwards failed: {after.message}"] if after.status else []
    for pod in (later, "unknown"):
        here.delete(pod, pod, netns, tries=3)
    drop_netns("known")
    return faults


def big(*, objects: int, pods: int) -> list[str]:
    """Definitions of 1 MB and thousands of pods: the agent stays under its limit of memory, and pods come up."""
    with node(pods={"known": "net", "big": objects, "many": pods}) as here:
        here.script("net", PLUGIN)
        agent = here.start_agent(wait=120)
        netns = make_netns("known")
        outcome = here.call("ADD", "known", "known", netns, timeout=60)
        here.delete("known", "known", netns)
        drop_netns("known")
        peak = int(re.findall(r"VmHWM:\s+(\d+)", Path(f"/proc/{agent.pid}/status").read_text())[0]) // 1024
        print(f"{objects} definitions of 1 MB, {pods} pods: the agent had {peak} MiB at most")
        faults = [f"the agent had {peak} MiB, its limit is {MEMORY}"] if peak > MEMORY else []
        return faults + ([f"ADD failed: {outcome.message}"] if outcome.status else [])


class _Handler(fake_api._Handler):
    """Answers with the fault `kind`, otherwise as the fake server."""

    kind = ""

    def do_GET(self) -> None:  # noqa: N802
        kind, watch = type(self).kind, "watch" in self.path
        if kind == "silent":
            while type(self).kind == kind:
                time.sleep(0.1)
        elif kind == "slow":
            time.sleep(3)
        if kind.startswith("status "):
            code = int(kind.split()[1])
            self._answer(code, {"kind": "Status", "code": code, "message": "trouble"})
        elif kind in ("silent", "cut off") or (kind == "watches close" and watch):
            if kind == "cut off":
                self.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n{"metadata": {"res')
            self.close_connection = True
        elif kind == "garbage":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n\xff\xfe<html")
        elif kind == "no objects":
            self._answer(200, {"metadata": None, "items": [None, 1, {"metadata": None}]})
        else:
            super().do_GET()


def _serve() -> None:
    """The program: each line of standard input selects a fault, and gets one line as an answer."""
    socketserver.BaseServer.handle_error = lambda *_: None  # type: ignore[method-assign]
    fake_api._Handler = _Handler  # type: ignore[misc]
    api = fake_api.FakeApi()
    given = json.loads(sys.argv[1])
    for number in range(given.pop("big", 0)):
        api.put(NADS, "default", f"big{number}", spec={"config": json.dumps({"type": "x", "pad": "y" * 1_000_000})})
    for number in range(given.pop("many", 0)):
        api.pod(f"many{number}", annotations={"note": "z" * 2000})
    for name, networks in given.items():
        api.pod(name, annotations={"cni": networks})
    print(api.port, flush=True)
    for line in sys.stdin:
        _Handler.kind = line.strip()
        if _Handler.kind == "down":
            api.down()
        elif api._server is None:
            api.up()
        print("done", flush=True)
    os._exit(0)


if __name__ == "__main__":
    _serve()
