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

from genie.agent import protocol
from genie.agent.server import ShimExecutor
from genie.kube import Pod
from genie.request import Request
from genie.select import devices
from genie.serve import serve
from tests.rigs.agent import call, script, serving

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
