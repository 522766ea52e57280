"""Kubernetes objects as plain JSON, over the connections of a backend's `ApiClient`.

The runner lists a namespace's pods many times a second while it waits. The generated client would build and validate a
model of thousands of fields each time. So this module uses the client's pool of connections and credentials directly,
and returns the API server's JSON.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from harness.waiting import limit

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

Object = Mapping[str, Any]

# A connection that is tried again is no news: what fails in the end is an ApiError.
logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)

#: The label of scenarios' namespaces: the next run removes namespaces that a run kept.
OF_SCENARIOS = {"app.kubernetes.io/managed-by": "genie-harness"}

# Plurals of common kinds in scenarios; for other kinds, the API server is asked.
_PLURALS = {
    "ConfigMap": "configmaps",
    "Event": "events",
    "Lease": "leases",
    "Logicalnetwork": "logicalnetworks",
    "LogicalNetwork": "logicalnetworks",
    "MultiNetworkPolicy": "multi-networkpolicies",
    "NetworkAttachmentDefinition": "network-attachment-definitions",
    "NetworkPolicy": "networkpolicies",
    "Physicalnetwork": "physicalnetworks",
    "PhysicalNetwork": "physicalnetworks",
    "Pod": "pods",
    "Service": "services",
}
_CLUSTER_WIDE = frozenset({"Namespace", "Node", "CustomResourceDefinition"})


class ApiError(Exception):
    """The API server refused; the message comes from it."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(f"{message} (HTTP {status})" if status else message)


class Objects:
    """Reads and writes objects by path. Safe to use from several threads."""

    def __init__(self, api: ApiClient) -> None:
        self._configuration = api.configuration
        self._pool = api.rest_client.pool_manager
        self._host = str(api.configuration.host).rstrip("/")
        self._found: dict[tuple[str, str], tuple[str, bool]] = {}
        self._lock = threading.Lock()

    def get(self, path: str, **query: str) -> dict[str, Any]:
        """The object at a path.

        Raises ApiError: the API server refuses; `status` is 404 if there is no object.
        """
        return self._request("GET", path, query=query)

    def find(self, path: str) -> dict[str, Any] | None:
        """The object at a path; None if there is none."""
        try:
            return self.get(path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def create(self, thing: Object, namespace: str = "") -> dict[str, Any]:
        """Create an object in this namespace, unless it names another or its kind has no namespace."""
        return self._request("POST", self.collection(thing, namespace), body=thing)

    def patch(self, path: str, change: Object) -> dict[str, Any]:
        """Merge a change into the object at a path."""
        return self._request("PATCH", path, body=change, content_type="application/merge-patch+json")

    def delete(self, path: str, *, grace: int | None = None) -> None:
        """Delete the object at a path; no error if there is none."""
        options: dict[str, Any] = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        try:
            self._request("DELETE", path, body=options)
        except ApiError as error:
            if error.status != 404:
                raise

    def collection(self, thing: Object, namespace: str = "") -> str:
        """The path of the collection that an object belongs to."""
        version, kind = str(thing["apiVersion"]), str(thing["kind"])
        root = f"/apis/{version}" if "/" in version else f"/api/{version}"
        plural, namespaced = self._resource(root, version, kind)
        metadata = thing.get("metadata") or {}
        within = metadata.get("namespace") or namespace
        return f"{root}/namespaces/{within}/{plural}" if namespaced and within else f"{root}/{plural}"

    def path(self, thing: Object, namespace: str = "") -> str:
        return f"{self.collection(thing, namespace)}/{thing['metadata']['name']}"

    def _resource(self, root: str, version: str, kind: str) -> tuple[str, bool]:
        if kind in _CLUSTER_WIDE:
            return _PLURALS.get(kind, kind.lower() + "s"), False
        if kind in _PLURALS:
            return _PLURALS[kind], True
        with self._lock:
            if (version, kind) not in self._found:
                for resource in self.get(root)["resources"]:
                    if "/" not in resource["name"]:
                        found = (resource["name"], bool(resource["namespaced"]))
                        self._found[version, resource["kind"]] = found
            if (version, kind) not in self._found:
                raise ApiError(404, f"this cluster knows no kind {kind} in {version}")
            return self._found[version, kind]

    def _request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content_type: str = "application/json",
    ) -> dict[str, Any]:
        from urllib.parse import urlencode

        from urllib3.exceptions import HTTPError

        url = self._host + path + (f"?{urlencode(query)}" if query else "")
        headers = {"Accept": "application/json", **self._credentials()}
        data = None
        if body is not None:
            headers["Content-Type"] = content_type
            data = json.dumps(body).encode()
        try:
            response = self._pool.request(method, url, body=data, headers=headers, timeout=limit(30.0))
        except HTTPError as error:
            raise ApiError(0, f"the API server at {self._host} cannot be reached: {_cause(error)}") from error
        answer = _json(response.data)
        if response.status >= 400:
            raise ApiError(response.status, str(answer.get("message") or f"{method} {path} was refused"))
        return answer

    def _credentials(self) -> dict[str, str]:
        token = self._configuration.get_api_key_with_prefix("BearerToken", "authorization")
        if token:
            return {"Authorization": token}
        if self._configuration.username:
            return {"Authorization": self._configuration.get_basic_auth_token()}
        return {}


def selector(labels: Mapping[str, str]) -> str:
    """Labels as a query's `labelSelector`."""
    return ",".join(f"{key}={value}" for key, value in labels.items())


def _cause(error: BaseException) -> BaseException:
    """The error at the bottom: urllib3 wraps it into its own, with the pool and the number of retries."""
    reason = getattr(error, "reason", None)  # a text in an SSLError
    below = reason if isinstance(reason, BaseException) else error.__cause__
    return _cause(below) if below else error


def _json(data: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(data or b"{}")
    except ValueError:
        return {"message": data.decode(errors="replace")[:500]}
    return answer if isinstance(answer, dict) else {"message": str(answer)}
