"""Applies manifests to an API server, and deletes them: like `kubectl apply --server-side`, without kubectl.

Server-side apply makes every step idempotent, so an interrupted creation of a cluster can continue.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from kubernetes.client import ApiClient
from kubernetes.dynamic import DynamicClient
from kubernetes.dynamic.exceptions import ConflictError, DynamicApiError, NotFoundError, ResourceNotFoundError

from harness.objects import ApiError
from harness.waiting import NotReady, limit, retry, until_nothing

MANAGER = "genie-harness"
Object = dict[str, Any]

#: Applied before everything else, in this order; the rest follows as given.
FIRST = ("Namespace", "CustomResourceDefinition", "ServiceAccount")


class Applier:
    """Applies objects to one API server. Not thread-safe: make one instance for each thread."""

    def __init__(self, api: ApiClient) -> None:
        self.client: Any = DynamicClient(api)  # type: ignore[no-untyped-call]

    def apply(self, objects: Iterable[Object]) -> None:
        """Create or change objects, namespaces and CRDs first; waits for the kind of a new CRD."""
        for thing in in_order(objects):
            try:
                retry(lambda thing=thing: self._apply(thing), 30.0, _is_early)  # type: ignore[misc]
            except DynamicApiError as error:
                raise _named(thing, error) from error

    def delete(self, objects: Iterable[Object]) -> None:
        """Delete objects in reverse order; missing objects are no error."""
        for thing in reversed(in_order(objects)):
            try:
                self._resource(thing).delete(**_place(thing), body={"propagationPolicy": "Background"})
            except (NotFoundError, ResourceNotFoundError):
                continue

    def find(self, thing: Object) -> Object | None:
        """The object of this kind and name on the API server; None if there is none."""
        try:
            found: Object = self._resource(thing).get(**_place(thing)).to_dict()
        except (NotFoundError, ResourceNotFoundError):
            return None
        return found

    def _apply(self, thing: Object) -> None:
        self._resource(thing).patch(
            body=thing, **_place(thing), content_type="application/apply-patch+yaml",
            field_manager=MANAGER, force=True,
        )  # fmt: skip

    def _resource(self, thing: Object) -> Any:
        return self.client.resources.get(api_version=thing["apiVersion"], kind=thing["kind"])


def in_order(objects: Iterable[Object]) -> list[Object]:
    """The objects in an order that works, with Lists flattened."""
    flat = [item for thing in objects for item in (thing["items"] if thing.get("kind") == "List" else [thing])]
    return sorted(flat, key=lambda thing: FIRST.index(thing["kind"]) if thing["kind"] in FIRST else len(FIRST))


def _is_early(error: Exception) -> bool:
    """Whether a later attempt may succeed: a CRD or namespace is still being created."""
    early = isinstance(error, ResourceNotFoundError | NotFoundError | ConflictError)
    return early or (isinstance(error, DynamicApiError) and error.status in (429, 500, 503))


def wait(what: str, seen: Callable[[], str], timeout: float) -> None:
    """Wait until `seen` returns an empty string; it returns a description of the missing parts.

    Raises NotReady: something is still missing after `timeout` seconds.
    """

    def missing() -> str:
        try:
            return seen()
        except ApiError as error:
            return str(error)

    if left := until_nothing(missing, timeout):
        raise NotReady(f"{what}: not ready after {limit(timeout):.0f} s: {left}")


def _place(thing: Object) -> dict[str, str]:
    meta = thing["metadata"]
    return {"name": meta["name"], **({"namespace": meta["namespace"]} if meta.get("namespace") else {})}


def _named(thing: Object, error: DynamicApiError) -> Exception:
    reason = str(getattr(error, "summary", lambda: error)())
    return RuntimeError(f"{thing['kind']} {thing['metadata']['name']}: {reason}")
