"""The rest of a control plane: binds pods to nodes, and empties deleted namespaces."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from harness.embedded.rest import Client, Object, Refusal
from harness.waiting import until_nothing

_CONTENTS = (
    "/api/v1/namespaces/{}/pods",
    "/apis/k8s.cni.cncf.io/v1/namespaces/{}/network-attachment-definitions",
)
_RESYNC = 2.0


class Control:
    """The harness as scheduler and namespace controller."""

    def __init__(self, client: Client, nodes: Sequence[str], *, emulated: bool) -> None:
        self._client, self._emulated = client, emulated
        self._nodes = itertools.cycle(nodes)
        self._ending: set[str] = set()

    def run(self) -> None:
        """Work, for ever, in threads."""
        for path, see in (("/api/v1/pods", self._pod), ("/api/v1/namespaces", self._namespace)):
            for work in (self._watch, self._look_again):
                threading.Thread(target=work, args=(path, see), daemon=True).start()

    def _watch(self, path: str, see: Callable[[Object], None]) -> None:
        def of_event(event: Object) -> None:
            if event["type"] != "DELETED":
                see(event["object"])

        self._client.follow(path, of_event, [])

    def _look_again(self, path: str, see: Callable[[Object], None]) -> None:
        while True:
            time.sleep(_RESYNC)
            with suppress(OSError, Refusal):
                for thing in self._client.get(path)["items"]:
                    see(thing)

    def _pod(self, pod: Object) -> None:
        """Bind a pod without a node; release one that was deleted before that."""
        meta = pod["metadata"]
        if pod["spec"].get("nodeName"):
            return
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
        with suppress(OSError, Refusal):
            if meta.get("deletionTimestamp"):
                self._client.delete(path, {"gracePeriodSeconds": 0, "preconditions": {"uid": meta["uid"]}})
                return
            node = next(self._nodes)
            if self._emulated:
                self._client.patch(path, {"spec": {"nodeName": node}})
            else:
                target = {"apiVersion": "v1", "kind": "Node", "name": node}
                binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": meta["name"]}, "target": target}
                self._client.post(f"{path}/binding", binding)

    def _namespace(self, namespace: Object) -> None:
        name = namespace["metadata"]["name"]
        if namespace["metadata"].get("deletionTimestamp") and name not in self._ending:
            self._ending.add(name)
            threading.Thread(target=self._empty, args=(name,), daemon=True).start()

    def _empty(self, name: str) -> None:
        """Delete the contents of a namespace, wait until its pods are gone, and release it."""
        until_nothing(lambda: not self._emptied(name), math.inf, longest=0.05)
        self._ending.discard(name)

    def _emptied(self, name: str) -> bool:
        with suppress(OSError, Refusal):
            if not [thing for kind in _CONTENTS for thing in self._delete_all(kind.format(name))]:
                self._finish(name)
                return True
        return False

    def _delete_all(self, path: str) -> list[Object]:
        things: list[Object] = self._client.get(path)["items"]
        for thing in things:
            if not thing["metadata"].get("deletionTimestamp"):
                self._client.delete(f"{path}/{thing['metadata']['name']}", {"gracePeriodSeconds": 1})
        return things

    def _finish(self, name: str) -> None:
        path = f"/api/v1/namespaces/{name}"
        if self._emulated:
            self._client.delete(path, {"gracePeriodSeconds": 0})
            return
        namespace = self._client.get(path)
        namespace["spec"]["finalizers"] = []
        self._client.request("PUT", f"{path}/finalize", namespace)
