"""A slow request for one pod must not delay another: a kubelet that does not report a pod's devices."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from genie.agent import protocol, server
from genie.agent.server import ShimExecutor
from genie.kube import Pod
from genie.request import Request
from genie.select import devices
from genie.serve import serve
from tests.rigs.agent import call, script, serving, until

PLUGIN = """[ $CNI_COMMAND = ADD ] || exit 0
echo '{"cniVersion": "1.0.0", "interfaces": [{"name": "eth0", "mac": "02:00:00:00:00:01", "mtu": 1500,
       "sandbox": "/n"}], "ips": [{"address": "10.1.0.5/24", "interface": 0}]}'"""


class Kube:
    """Pods with names that begin with `fast` use a device, others use net.d's network."""

    async def pod(self, namespace: str, name: str, uid: str, given: Any = None) -> Pod:
        notes = {"cni": "fast"} if name.startswith("fast") else {}
        return Pod(namespace=namespace, name=name, uid=uid, annotations=notes)

    async def network(self, kind: str, namespace: str, name: str, *, needed: bool = False) -> Mapping[str, Any] | None:
        config = json.dumps({"cniVersion": "1.0.0", "name": name, "type": "plug"})
        notes = {"k8s.v1.cni.cncf.io/resourceName": "nic.example/fast"}
        return {"metadata": {"annotations": notes}, "spec": {"config": config}}

    async def defaults(self, namespace: str) -> None:
        return None

    async def event(self, pod: Pod, reason: str, message: str, *, warning: bool = False) -> None:
        pass

    async def annotate(self, pod: Pod, annotations: Mapping[str, str], shorter: Any) -> str:
        return ""


def test_a_kubelet_that_hangs_holds_up_no_other_pod(place: Path, binary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "SOCKET", str(place / "kubelet.sock"))
    monkeypatch.setattr(devices, "TIMEOUT", 4.0)
    (place / "bin").mkdir()
    (place / "net.d").mkdir()
    script(place / "bin", "plug", PLUGIN)
    (place / "net.d" / "10-net.conf").write_text('{"cniVersion": "1.0.0", "name": "net", "type": "plug"}')
    conf = {
        "cniVersion": "1.0.0", "name": "genie", "type": "genie",
        "conf_dir": str(place / "net.d"), "state_dir": str(place / "records"),
    }  # fmt: skip

    async def work(reported: protocol.Call, executor: ShimExecutor) -> protocol.Answer:
        reply = await serve(Request(env=reported.env, stdin=reported.stdin), Kube(), executor)
        return protocol.Answer(status=reply.status, stdout=reply.stdout)

    async def add(pod: str) -> tuple[dict[str, Any], float]:
        args = f"K8S_POD_NAMESPACE=default;K8S_POD_NAME={pod}"
        outcome = await call(
            binary, place / "agent.sock", stdin=json.dumps(conf).encode(),
            CNI_CONTAINERID=pod, CNI_ARGS=args, CNI_PATH=str(place / "bin"),
        )  # fmt: skip
        return outcome.json, time.monotonic()

    async def go() -> None:
        async with serving(work, place / "agent.sock"):
            hanging = [asyncio.create_task(add(f"fast{n}")) for n in range(12)]  # more than there are other threads
            silent = [(await asyncio.to_thread(kubelet.accept))[0] for _ in hanging]
            reported, _ = await add("plain")
            assert reported["ips"], reported
            deleted = await call(
                binary, place / "agent.sock", stdin=json.dumps(conf).encode(),
                CNI_COMMAND="DEL", CNI_CONTAINERID="plain", CNI_PATH=str(place / "bin"),
            )  # fmt: skip
            assert deleted.status == 0
            done = time.monotonic()
            for n, (refused, given_up) in enumerate(await asyncio.gather(*hanging)):
                assert refused["code"] == 11
                assert f"does not report the devices of pod default/fast{n}" in refused["msg"]
                assert done < given_up
            for each in silent:
                each.close()

    with socket.socket(socket.AF_UNIX) as kubelet:
        kubelet.bind(devices.SOCKET)
        kubelet.listen()
        asyncio.run(go())


#: At ADD its shim stands still until long after the time that the agent gives it, and then goes on.
STOPS = """case $CNI_COMMAND in
ADD) kill -STOP $PPID; while [ ! -e go-on ]; do sleep 0.05; done; kill -CONT $PPID; exec sleep 60;;
DEL) touch deleted;;
esac"""


def test_a_shim_that_is_late_is_given_up_and_reports_an_error(
    place: Path, binary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent closes the connection, and the call ends there. The shim still gives the runtime an error object,
    its plugin is gone, and the record makes the DEL call the plugin.
    """
    monkeypatch.setattr(server, "_LATE", 0.2)
    (place / "bin").mkdir()
    (place / "net.d").mkdir()
    script(
        place / "bin", "plug", STOPS.replace("go-on", str(place / "go-on")).replace("deleted", str(place / "deleted"))
    )
    (place / "net.d" / "10-net.conf").write_text('{"cniVersion": "1.0.0", "name": "net", "type": "plug"}')
    conf = {
        "cniVersion": "1.0.0", "name": "genie", "type": "genie", "delegate_timeout": 0.2,
        "conf_dir": str(place / "net.d"), "state_dir": str(place / "records"),
    }  # fmt: skip
    ended: list[str] = []

    async def work(asked: protocol.Call, executor: ShimExecutor) -> protocol.Answer:
        reply = await serve(Request(env=asked.env, stdin=asked.stdin), Kube(), executor)
        ended.append(asked.env["CNI_COMMAND"])
        return protocol.Answer(status=reply.status, stdout=reply.stdout)

    async def ask(verb: str) -> Any:
        return await call(
            binary, place / "agent.sock", stdin=json.dumps(conf).encode(), CNI_COMMAND=verb, CNI_CONTAINERID="late",
            CNI_ARGS="K8S_POD_NAMESPACE=default;K8S_POD_NAME=plain", CNI_PATH=str(place / "bin"),
        )  # fmt: skip

    async def go() -> None:
        async with serving(work, place / "agent.sock"):
            added = asyncio.create_task(ask("ADD"))
            await until(lambda: bool(ended))
            assert not added.done(), "the call has ended in the agent, while its shim stands still"
            (place / "go-on").touch()
            said = await added
            assert said.status == 1 and said.json["code"] == 11 and "went away" in said.json["msg"]
            assert [path.name for path in (place / "records").glob("*.json")] == ["late@eth0.json"]
            assert not (place / "deleted").exists()
            assert (await ask("DEL")).status == 0
            assert (place / "deleted").exists() and not list((place / "records").glob("*.json"))

    asyncio.run(go())
