"""kmock's Kubernetes emulator, used without a kube-apiserver: objects in memory, served over HTTP.

kmock stores and streams objects. This module adds only the other features that the harness needs: the server sets
namespace, UID, creation time and version; a deleted pod stays, with a deletion timestamp, until its kubelet releases it
(a namespace until it is empty). It checks no rights and no schema, and fills in no defaults.
"""

from __future__ import annotations

import asyncio
import datetime
import itertools
import re
import sys
import uuid
from typing import Any

import aiohttp.web
import kmock

#: kmock reads "namespaces/NAME/…" in a path as the contents of a namespace; it does not know namespaces as objects.
_NAMESPACES = "all-namespaces"
_PLURALS = {"Namespace": _NAMESPACES, "NetworkPolicy": "networkpolicies"}
_OF_NAMESPACES = re.compile(r"^(/api/v1/)namespaces(/[^/]+(/status|/finalize)?)?/?$")
KINDS = {
    "v1": ("Pod", "Node", "Namespace", "Event", "ConfigMap", "Service"),
    "apps/v1": ("DaemonSet", "Deployment"),
    "networking.k8s.io/v1": ("NetworkPolicy",),
    "rbac.authorization.k8s.io/v1": ("ClusterRole", "ClusterRoleBinding"),
    "apiextensions.k8s.io/v1": ("CustomResourceDefinition",),
}
_DEFINITIONS = "customresourcedefinitions"
_HELD = "harness.genie/kubelet"  # with this finalizer, kmock keeps a deleted pod until its kubelet releases it


class Emulator(kmock.KubernetesEmulator):
    """kmock's emulator with the server features that pods need."""

    def __init__(self) -> None:
        super().__init__()
        self._versions = itertools.count(1)
        for group_version, kinds in KINDS.items():
            group, _, version = group_version.rpartition("/")
            for kind in kinds:
                plural = _PLURALS.get(kind, f"{kind.lower()}s")
                self.resources[kmock.resource(group, version, plural)] = kmock.ResourceInfo(kind=kind)

    async def __call__(self, raw_request: aiohttp.web.BaseRequest) -> aiohttp.web.StreamResponse:
        """Like kmock, but namespaces are a resource like others, and PUT is a PATCH."""
        path = _OF_NAMESPACES.sub(rf"\1{_NAMESPACES}\2", raw_request.path)
        method = "PATCH" if raw_request.method == "PUT" else raw_request.method
        return await super().__call__(
            raw_request.clone(method=method, rel_url=raw_request.rel_url.with_path(path, keep_query=True))
        )

    async def _serve_list(self, request: kmock.Request) -> Any:
        """Like kmock, with the kind and the version, which Go's clients need in a list."""
        listed: Any = await super()._serve_list(request)
        resource: Any = request.resource
        group_version = "/".join(filter(None, [resource.group, resource.version]))
        kind = f"{self.resources[resource].kind}List"
        version = str(next(self._versions))
        return {**listed, "kind": kind, "apiVersion": group_version, "metadata": {"resourceVersion": version}}

    def _serve_watch(self, request: kmock.Request) -> Any:
        """Like kmock, with the content type, which Go's clients need for a watch."""
        json = {"Content-Type": "application/json"}
        return kmock.Response(headers=json, payload=super()._serve_watch(request))  # type: ignore[attr-defined]

    async def _handle(self, request: kmock.Request) -> aiohttp.web.StreamResponse:
        try:
            self._mind(request)
            return await super()._handle(request)
        finally:
            self._forget(request)

    def _mind(self, request: kmock.Request) -> None:
        """Change a received object as a server does, before it is stored."""
        data = request.data if isinstance(request.data, dict) else {}
        if request.resource is None:
            return
        if request.action == kmock.action.CREATE:
            self._complete(request, data)
            if request.resource.plural == _DEFINITIONS:
                for kind in _defined(data):
                    self.resources[kind] = kmock.ResourceInfo(kind=data["spec"]["names"]["kind"])
        elif request.action == kmock.action.UPDATE:
            meta = data.setdefault("metadata", {})
            self._must_be(request, meta)
            meta["resourceVersion"] = str(next(self._versions))
        elif request.action == kmock.action.DELETE:
            self._must_be(request, data.get("preconditions") or {})
            if data.get("gracePeriodSeconds") == 0:
                self._let_go(request)

    def _forget(self, request: kmock.Request) -> None:
        """Drop old requests: kmock remembers all for assertions, and searches them for each new one."""
        memories: list[Any] = [self, *self._payloads]
        for memory in memories:
            memory._requests[:] = [other for other in memory._requests if other is not request]
        if request.action == kmock.action.DELETE and request.resource is not None:
            self._sweep(request)

    def _sweep(self, request: kmock.Request) -> None:
        """Remove deleted objects, which kmock keeps; a namespace with its contents, a definition with its objects."""
        key: Any = (request.resource, request.namespace, request.name)
        if request.resource is None or key not in self.objects or not self.objects[key].deleted:
            return
        was = dict(self.objects[key].last.raw)
        del self.objects[key]
        namespace = request.name if request.resource.plural == _NAMESPACES else None
        kinds = _defined(was) if request.resource.plural == _DEFINITIONS else []
        for other in list(self.objects.keys()):
            if other[0] in kinds or (namespace and other[1] == namespace):
                del self.objects[other]
        for kind in kinds:
            del self.resources[kind]

    def _complete(self, request: kmock.Request, data: dict[str, Any]) -> None:
        meta = data.setdefault("metadata", {})
        if request.namespace:
            meta.setdefault("namespace", request.namespace)
        if "name" not in meta and "generateName" in meta:
            meta["name"] = meta["generateName"] + uuid.uuid4().hex[:5]
        meta["uid"] = str(uuid.uuid4())
        meta["resourceVersion"] = str(next(self._versions))
        meta["creationTimestamp"] = datetime.datetime.now(tz=datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        if request.resource is not None and request.resource.plural in ("pods", _NAMESPACES):
            meta["finalizers"] = [*meta.get("finalizers", []), _HELD]
            data.setdefault("status", {"phase": "Pending" if request.resource.plural == "pods" else "Active"})

    def _must_be(self, request: kmock.Request, expected: dict[str, Any]) -> None:
        """Refuse a request for an object of another UID."""
        key: Any = (request.resource, request.namespace, request.name)
        if "uid" not in expected or key not in self.objects or self.objects[key].deleted:
            return
        if expected["uid"] != dict(self.objects[key].last.raw)["metadata"]["uid"]:
            raise kmock.KubernetesError(status=409, reason="Conflict", message="that is the UID of another object")

    def _let_go(self, request: kmock.Request) -> None:
        key: Any = (request.resource, request.namespace, request.name)
        if key in self.objects and not self.objects[key].deleted:
            names = dict(self.objects[key].last.raw)["metadata"].get("finalizers", [])
            held = [name for name in names if name != _HELD]
            self.objects[key].patch({"metadata": {"finalizers": held, "deletionTimestamp": None}})


def _defined(definition: dict[str, Any]) -> list[Any]:
    """The kinds of a CustomResourceDefinition, one for each version."""
    spec = definition["spec"]
    return [kmock.resource(spec["group"], each["name"], spec["names"]["plural"]) for each in spec["versions"]]


async def serve(port: int) -> None:
    """Serve until the process is ended."""
    async with Emulator() as emulator:
        server = kmock.Server(emulator, host="0.0.0.0", port=port)
        async with server:
            await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
