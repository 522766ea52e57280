"""The agent's cache of the cluster: this node's pods and the network objects, kept current by watches.

Each resource has a `Watch`, a thread that lists and then watches it as long as the agent lives. Its content is replaced
in one step, so the event loop reads it without a lock. While the API server is away, the last known content is served.

Users can create large objects, so each resource may take at most `BUDGET`. Answers are read by a sieve, in smaller
pages if objects are large, and only the needed fields are cached. Of objects beyond the budget, only their existence is
noted. When a pod needs one, it is requested from the API server, and replaces the least recently used object.
`CachedKube` is the `Kube` for `serve`, made of these. If the cache cannot answer (the watch has not seen a pod yet, or
has one of another UID), it asks the API server, in a thread, so that a call never fails because the cache is behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import random
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar
from urllib.parse import urlencode

from genie.agent.metrics import Metrics
from genie.agent.sieve import Sieve, TooLong, Wanted, decode
from genie.agent.writer import Writer
from genie.cni.errors import CniError, Code
from genie.kube import (
    DEFAULTS,
    HASH,
    JSON,
    MIRROR,
    NETWORK_OBJECTS,
    OWNERS,
    Client,
    Default,
    Pod,
    RefusedError,
    Shorter,
    pod_event,
    read_network,
    read_pod,
)
from genie.log import Complaint, Log
from genie.select import logical
from genie.select.annotations import ANNOTATION_MAX, READ
from genie.select.networks import CONFIG_MAX, RESOURCE, too_large
from genie.verbs.network_status import MULTI_IP, NETWORK_STATUS

T = TypeVar("T")
R = TypeVar("R")
Connect = Callable[[float], Client]
"""Makes a client with the current credentials, for a time limit in seconds."""
Keep = Callable[[Mapping[str, Any]], tuple[T | None, T | None]]

PAGE = 500
"""The limit for a page of a list, in objects, and `FIRST_PAGE` for the first page; small objects get larger pages."""
FIRST_PAGE = 25
PAGE_SIZE = 1 << 20
"""The intended size of a page of a list, in characters."""
LIST_SIZE = 8 << 20
"""Characters of a list after which the rest is asked for without specifications, for which `BUDGET` has no room."""
BUDGET = 8 << 20
"""The limit for the objects of one resource, in bytes."""
OBJECTS_MAX = 20_000
"""The limit for one resource, in objects. With more, none is cached, and each is requested when it is needed."""
OVERFLOW_SECONDS = 300.0
"""Seconds between two checks whether there are fewer now."""
REQUEST_TIMEOUT = 10.0
PAGE_SECONDS = 60.0
"""For the whole of a page of a list."""
WATCH_SECONDS = 300
"""How long the API server is asked to keep a watch open; it sends a bookmark about every minute."""
SILENCE = 150.0
"""Seconds without data after which a watch counts as dead."""
ABSENT_SECONDS = 10.0
"""Seconds between two requests for a resource that the API server does not have (no such CRD yet)."""
BACKOFF = (0.2, 30.0)
BLIND = 5.0
"""The longest pause in seconds before a watch that worked, but ended early, is opened again."""
_METADATA = "application/json;as=PartialObjectMetadata{};g=meta.k8s.io;v=v1,application/json"
"""Requests only the metadata of objects; every API server since Kubernetes 1.15 supports this."""
_NAMES = dict.fromkeys(("namespace", "name", "uid", "resourceVersion"), True)
_NOTES = (*READ, HASH, MIRROR, NETWORK_STATUS, MULTI_IP)
_POD: Wanted = {"metadata": {**_NAMES, "annotations": dict.fromkeys(_NOTES, True), "labels": True}}
_SPEC = ("config", *logical.KEYS)
_NETWORK: Wanted = {"metadata": {**_NAMES, "annotations": {RESOURCE: True}}, "spec": dict.fromkeys(_SPEC, True)}
_ANY: Wanted = {
    "metadata": {**_NAMES, "annotations": dict.fromkeys((*_NOTES, RESOURCE, DEFAULTS), True), "labels": True},
    **{key: _NETWORK["spec"] if key == "spec" else True for key in ("spec", "kind", "code", "reason", "message")},
}
_OWNER: Wanted = {"metadata": {**_NAMES, "annotations": {DEFAULTS: True}, "labels": {DEFAULTS: True}}}
NO_DEFAULT: Mapping[str, Any] = {"metadata": {}}
"""Stands for each namespace and node without default networks."""
_OVERLONG = "?" * (ANNOTATION_MAX + 1)
"""Replaces an annotation that was skipped: `asks` refuses it with the message for a too long one."""

log = Log(__name__)


class _ExpiredError(Exception):
    """The API server does not have the changes since our version any more: list again."""


class _OverflowError(CniError):
    """There are more objects than the limit."""


@dataclass(frozen=True, slots=True)
class Unkept:
    """An object that exists but is not cached. version: its resourceVersion. too_large: too long for genie."""

    version: str
    too_large: bool = False


def read_object(data: bytes) -> Any:
    """Decode an answer of the API server about one object, without the parts that genie does not need.

    Raises ValueError: it is not JSON.
    """
    value = decode(data, _ANY)
    if isinstance(value, dict) and isinstance(meta := value.get("metadata"), dict) and "annotations" in meta:
        return {**value, "metadata": {**meta, "annotations": _readable(meta["annotations"])}}
    return value


def _readable(notes: Any) -> dict[str, Any]:
    if not isinstance(notes, dict):
        return {}
    return {key: _OVERLONG if isinstance(value, TooLong) else value for key, value in notes.items()}


class Asker:
    """One client for one thread at a time. A new one is made after a failure: the credentials may have changed."""

    def __init__(self, connect: Connect, timeout: float = REQUEST_TIMEOUT) -> None:
        self._connect, self._timeout = connect, timeout
        self._client: Client | None = None

    def ask(self, question: Callable[[Client], R]) -> R:
        """Run a request to the API server.

        Raises CniError: the request's own errors; 11 when the connection breaks.
        """
        kept = self._client is not None
        try:
            if self._client is None:
                self._client = self._connect(self._timeout)
            return question(self._client)
        except CniError as error:
            if error.code != Code.UNKNOWN_CONTAINER:
                self.close()
            if kept and isinstance(error, RefusedError) and error.status == 401:
                return self.ask(question)  # somebody may have renewed the credentials since that client was made
            raise
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise CniError(Code.TRY_AGAIN, f"the API server broke off: {error or type(error).__name__}") from error

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


class _Shelf(Generic[T]):
    """Objects as far as they are kept, within the budget: (namespace, name) → what `keep` makes of an object.

    keep: makes of an object what to keep, and what instead where that has no room; None for nothing. room: as `Watch`.
    """

    def __init__(self, keep: Keep[T], what: str, room: int = 0) -> None:
        self._keep, self._what, self._room = keep, what, room
        self.items: dict[tuple[str, str], T] = {}
        self._sizes: dict[tuple[str, str], int] = {}
        self.size = 0

    def put(self, item: Mapping[str, Any]) -> None:
        key = _key(item)
        self.size -= self._sizes.pop(key, 0)
        whole, instead = self._keep(item)
        size = _size(whole)
        kept = whole if self.size + size <= (self._room or BUDGET) else instead
        if self._room and kept is None and whole is not None:
            raise _OverflowError(Code.TRY_AGAIN, f"the {self._what} take more than {self._room >> 20} MiB")
        if kept is None:
            self.items.pop(key, None)
            return
        if kept is whole:
            self._sizes[key] = size
            self.size += size
        self.items[key] = kept
        if len(self.items) > OBJECTS_MAX:
            raise _OverflowError(
                Code.TRY_AGAIN, f"there are more than {OBJECTS_MAX} {self._what}; each is asked for when it is needed"
            )

    def remove(self, item: Mapping[str, Any]) -> None:
        self.items.pop(_key(item), None)
        self.size -= self._sizes.pop(_key(item), 0)


class Watch(Generic[T]):
    """The watch of one resource.

    items: replaced, never changed in place while it is listed; single changes are atomic. live: absence from
    `items` means absence in the cluster. heard: when the API server last sent anything (time.monotonic). overflowing:
    there are more than the limit. wanted: the fields to keep of a long object. metadata_only: only metadata is needed.
    optional: without the right to list it, nothing is there. changed: called after each change, in the watch's thread.
    room: bytes for all objects, without which it overflows; 0: `BUDGET`, and an object without room is left out.
    """

    def __init__(
        self, name: str, path: str, connect: Connect, keep: Keep[T], wanted: Wanted, *, metadata_only: bool = False,
        optional: bool = False, changed: Callable[[], None] = lambda: None, room: int = 0, **selector: str,
    ) -> None:  # fmt: skip
        self.name, self._path, self._connect, self._keep, self._wanted = name, path, connect, keep, wanted
        self._metadata_only = self._in_brief = metadata_only
        self._optional, self.changed = optional, changed
        self._selector = selector
        self._room = room
        self._shelf = self._empty()
        self.live = self.overflowing = False
        self.heard = 0.0
        self.listed = threading.Event()
        self._version = ""
        self._stopped = threading.Event()
        self.complaint = Complaint(log, "a watch failed; serving the last known objects")

    @property
    def items(self) -> dict[tuple[str, str], T]:
        return self._shelf.items

    def _empty(self) -> _Shelf[T]:
        return _Shelf(self._keep, self.name, self._room)

    def start(self) -> None:
        threading.Thread(target=self._run, name=f"watch-{self.name}", daemon=True).start()

    def stop(self) -> None:
        """Ask the thread to end. It is a daemon thread, so the process can end without it."""
        self._stopped.set()

    def get(self, namespace: str, name: str) -> T | None:
        return self.items.get((namespace, name))

    def _run(self) -> None:
        asking, streaming = Asker(self._connect), Asker(self._connect, SILENCE)
        wait = BACKOFF[0]
        while not self._stopped.is_set():
            began, pause = time.monotonic(), None
            try:
                if not (self._version or asking.ask(self._list)):
                    pause = ABSENT_SECONDS
                else:
                    streaming.ask(self._watch)
                    lived = time.monotonic() - began
                    if lived > BACKOFF[1]:
                        pause = 0.0
                    elif lived > 1:  # something cuts it early, and what happens meanwhile is seen late
                        pause, wait = min(wait, BLIND), min(wait * 2, BACKOFF[1])
            except _ExpiredError:  # a server that refuses each version at once would else be asked for lists all day
                self._version = ""
            except _OverflowError as error:
                self._listed(self._empty(), "", overflowing=True)
                pause = OVERFLOW_SECONDS
                asking.close()
                self.complaint.about(error, resource=self.name)
            except Exception as error:  # whatever it is, this thread must go on: nothing else keeps the cache current
                self.live, self._version = False, ""
                asking.close()
                self.complaint.about(error, resource=self.name)
            if time.monotonic() - began > BACKOFF[1]:
                wait = BACKOFF[0]
            if pause is None:
                pause, wait = wait, min(wait * 2, BACKOFF[1])
            if pause:  # jitter, so that the agents of all nodes do not come back at once
                self._stopped.wait(pause * random.uniform(0.5, 1.0))

    def _list(self, client: Client) -> bool:
        """List all objects, page by page; False if the API server has no such resource."""
        shelf = self._empty()
        query = {"limit": str(min(FIRST_PAGE, PAGE)), **self._selector}
        size, self._in_brief = 0, self._metadata_only
        while True:
            accept = _METADATA.format("List") if self._in_brief else JSON
            status, pieces = client.open(f"{self._path}?{urlencode(query)}", accept, within=PAGE_SECONDS)
            with contextlib.closing(pieces):
                if status == 404 or (status == 403 and self._optional):
                    for _ in pieces:
                        pass
                    self._listed(self._empty(), "")
                    return False
                if status == 410:  # the list's own continuation is too old
                    raise _ExpiredError
                if status != 200:
                    raise CniError(Code.TRY_AGAIN, f"the API server answers {status} to a list of {self.name}")
                page, before = Sieve(pieces), len(shelf.items)
                for item in page.items(self._wanted):
                    shelf.put(item)
                for _ in pieces:  # what ends it: the connection is good for another page then
                    pass
            meta = page.metadata if isinstance(page.metadata, dict) else {}
            size += page.position
            self._in_brief = self._in_brief or size > LIST_SIZE
            if not (token := meta.get("continue")):
                self._listed(shelf, str(meta.get("resourceVersion") or ""))
                return True
            if token == query.get("continue") or self._stopped.is_set():
                raise CniError(Code.TRY_AGAIN, f"the API server does not end its list of {self.name}")
            count = max(len(shelf.items) - before, 1)
            query["limit"] = str(min(PAGE, max(1, PAGE_SIZE * count // max(page.position, 1))))
            query["continue"] = token

    def _listed(self, shelf: _Shelf[T], version: str, *, overflowing: bool = False) -> None:
        self.live = self.live and not overflowing  # before there is nothing on the shelf
        self._shelf, self._version = shelf, version
        self.heard, self.overflowing, self.live = time.monotonic(), overflowing, not overflowing
        if not overflowing and self.complaint.over():
            log.info("the API server is back", resource=self.name)
        self.listed.set()
        self.changed()

    def _watch(self, client: Client) -> None:
        """Watch until the API server ends the watch, which it does from time to time."""
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(int(WATCH_SECONDS * random.uniform(0.8, 1.0))),
            **self._selector,
        }
        accept = _METADATA.format("") if self._in_brief else JSON
        within = WATCH_SECONDS + SILENCE
        status, pieces = client.open(f"{self._path}?{urlencode(query)}", accept, within=within)
        with contextlib.closing(pieces):
            if status == 410:
                raise _ExpiredError
            if status != 200:
                raise CniError(Code.TRY_AGAIN, f"the API server answers {status} to a watch of {self.name}")
            for event in Sieve(pieces).events(self._wanted):
                self.heard = time.monotonic()
                self._take(event.get("type"), event.get("object") or {})
                if self._stopped.is_set():
                    return

    def _take(self, kind: Any, item: Any) -> None:
        if not isinstance(item, dict):
            raise ValueError(f"an event without an object, but {type(item).__name__}")
        if kind == "ERROR":
            if item.get("code") == 410:
                raise _ExpiredError
            raise CniError(Code.TRY_AGAIN, f"the watch of {self.name} ended: {item.get('message')}")
        if kind in ("ADDED", "MODIFIED"):
            self._shelf.put(item)
        elif kind == "DELETED":
            self._shelf.remove(item)
        if kind != "BOOKMARK":
            self.changed()
        self._version = str((item.get("metadata") or {}).get("resourceVersion") or self._version)


def _key(item: Mapping[str, Any]) -> tuple[str, str]:
    meta = item.get("metadata") or {}
    return sys.intern(str(meta.get("namespace") or "")), str(meta.get("name") or "")


def _keep_pod(item: Mapping[str, Any]) -> tuple[Pod, None]:
    """A pod without room in the cache is requested when it is needed, like one that has not been seen yet."""
    pod = Pod.of(item)
    notes = _readable(pod.annotations)
    return replace(pod, annotations={key: notes[key] for key in _NOTES if key in notes}, labels={}), None


def _keep_labelled_pod(item: Mapping[str, Any]) -> tuple[Pod, None]:
    pod, _ = _keep_pod(item)
    return replace(pod, labels=_readable((item.get("metadata") or {}).get("labels"))), None


def _keep_network(item: Mapping[str, Any]) -> tuple[Mapping[str, Any] | Unkept, Unkept]:
    meta = item.get("metadata") or {}
    unkept = Unkept(str(meta.get("resourceVersion") or ""), _is_too_large(item))
    if unkept.too_large or "spec" not in item:
        return unkept, unkept
    notes, spec = meta.get("annotations") or {}, item["spec"]
    kept = {key: meta[key] for key in ("namespace", "name", "uid") if key in meta}
    if isinstance(notes, dict) and RESOURCE in notes:
        kept["annotations"] = {RESOURCE: notes[RESOURCE]}
    if isinstance(spec, dict):
        spec = {key: spec[key] for key in _SPEC if key in spec}
    return {"metadata": kept, "spec": spec}, unkept


def _keep_owner(item: Mapping[str, Any]) -> tuple[Mapping[str, Any] | Unkept, Unkept]:
    meta = item.get("metadata") or {}
    readable = {"annotations": _readable(meta.get("annotations")), "labels": meta.get("labels")}
    default = Default.of("", "", {"metadata": readable})
    kept = {"metadata": {f"{default.place}s": {DEFAULTS: default.networks}}} if default else NO_DEFAULT
    return kept, Unkept(str(meta.get("resourceVersion") or ""))


def _usable(network: Mapping[str, Any] | None, kind: str, namespace: str, name: str) -> Mapping[str, Any] | None:
    if network is not None and _is_too_large(network):
        raise too_large(kind, namespace, name)
    return network


def _is_too_large(network: Mapping[str, Any]) -> bool:
    spec = network.get("spec")
    config = spec.get("config") if isinstance(spec, dict) else spec
    return isinstance(config, TooLong) or (isinstance(config, str) and len(config) > CONFIG_MAX)


def _size(value: Any) -> int:
    """Its approximate size in bytes: parts that two objects share are counted twice."""
    size, left = 0, [value]  # not recursive: users decide how deep an object is nested
    while left:
        one = left.pop()
        if one is _OVERLONG:
            continue
        match one:
            case dict():
                left += (*one, *one.values())
            case list():
                left += one
            case Pod():
                size += 500
                left += (one.annotations, one.labels)
                continue
            case _:
                left += (getattr(one, name) for name in getattr(one, "__dataclass_fields__", ()))
        size += sys.getsizeof(one)
    return size


class CachedKube:
    """The agent's Kube. node: the node's name, to watch its pods. labels: keep the pods' labels, too."""

    def __init__(self, connect: Connect, node: str, writer: Writer, metrics: Metrics, *, labels: bool = False) -> None:
        self.writer, self.metrics = writer, metrics
        self.pods = Watch(
            "pods", "/api/v1/pods", connect, _keep_labelled_pod if labels else _keep_pod, _POD, metadata_only=True,
            fieldSelector=f"spec.nodeName={node}",
        )  # fmt: skip
        self.networks: dict[str, Watch[Mapping[str, Any] | Unkept]] = {
            kind: Watch(resource, f"/apis/{group}/{resource}", connect, _keep_network, _NETWORK)
            for kind, (group, resource) in NETWORK_OBJECTS.items()
        }
        self.node = node
        for kind, resource in OWNERS.items():
            of: dict[str, Any] = {"fieldSelector": f"metadata.name={node}"} if kind == "Node" else {}
            self.networks[kind] = Watch(
                resource, f"/api/v1/{resource}", connect, _keep_owner, _OWNER, metadata_only=True, optional=True, **of
            )
        self._asked: OrderedDict[tuple[str, str, str], tuple[str, Mapping[str, Any], int]] = OrderedDict()
        self._threads = ThreadPoolExecutor(4, "api")
        self._connect, self._local = connect, threading.local()

    @property
    def watches(self) -> list[Watch[Any]]:
        return [self.pods, *self.networks.values()]

    def start(self) -> None:
        for watch in self.watches:
            watch.start()
        self.metrics.cache_age.read = self._ages
        self.metrics.cached.read = lambda: {(watch.name,): len(watch.items) for watch in self.watches}

    def stop(self) -> None:
        for watch in self.watches:
            watch.stop()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def synced(self) -> bool:
        """Whether each resource has been listed once."""
        return all(watch.listed.is_set() for watch in self.watches)

    async def pod(self, namespace: str, name: str, uid: str, given: Mapping[str, str] | None = None) -> Pod:
        if given is not None and uid:
            return await self._given(Pod(namespace=namespace, name=name, uid=uid, annotations=given))
        known = self.pods.get(namespace, name)
        # Without a UID, a new pod would be mistaken for a deleted one of the same name.
        if known and (known.is_it(uid) if uid else self.pods.live):
            return known
        self.metrics.api_direct.add(1, "pod")
        try:
            return await self._ask(lambda client: read_pod(client, namespace, name, uid))
        except CniError as error:
            if known and not uid and error.code == Code.TRY_AGAIN:
                return known
            raise

    async def _given(self, pod: Pod) -> Pod:
        """The runtime's values win. If the watch has a pod with another UID, one of the two is out of date, and the API
        server decides which. If it does not answer, the runtime's values are used.
        """
        known = self.pods.get(pod.namespace, pod.name)
        if known is None or known.is_it(pod.uid) or not self.pods.live or pod.is_static:
            return pod
        self.metrics.api_direct.add(1, "pod")
        try:
            await self._ask(lambda client: read_pod(client, pod.namespace, pod.name, pod.uid))
        except CniError as error:
            if error.code == Code.UNKNOWN_CONTAINER:
                raise
        return pod

    async def network(self, kind: str, namespace: str, name: str, *, needed: bool = False) -> Mapping[str, Any] | None:
        """From the cache, its absence too as long as the watch is live: most names that pods ask for are those of files
        on the node, and each would cost a request. An object that must be there is worth one: it, or its CRD, may have
        come a moment ago.
        """
        watch = self.networks[kind]
        known = watch.get(namespace, name)
        if isinstance(known, Unkept):
            return await self._unkept(kind, namespace, name, known)
        if known is not None or (watch.live and not needed):
            return known
        try:
            found = await self._read_network(kind, namespace, name)
        except CniError:
            if watch.listed.is_set() and not watch.overflowing:
                return None  # it was not there when the API server was
            raise
        return _usable(found, kind, namespace, name)

    async def defaults(self, namespace: str) -> Default | None:
        """From the watches. A namespace may be younger than they know, so its absence is worth a request.

        An API server that serves pods, but has never listed namespaces or nodes, has no defaults of them.
        """
        for kind, name in (("Namespace", namespace), ("Node", self.node)):
            try:
                found = await self.network(kind, "", name, needed=kind == "Namespace") if name else None
            except CniError:
                if not self.pods.live or self.networks[kind].listed.is_set():
                    raise
                found = None
            if default := Default.of(kind, name, found):
                return default
        return None

    async def _unkept(self, kind: str, namespace: str, name: str, known: Unkept) -> Mapping[str, Any] | None:
        """An object that the watch has no room for: as it was asked for before, if that is the same one still."""
        if known.too_large:
            raise too_large(kind, namespace, name)
        version, found, _ = self._asked.get((kind, namespace, name), ("", None, 0))
        if found is not None and version == known.version:
            self._asked.move_to_end((kind, namespace, name))
            return found
        return _usable(await self._read_network(kind, namespace, name), kind, namespace, name)

    async def _read_network(self, kind: str, namespace: str, name: str) -> Mapping[str, Any] | None:
        self.metrics.api_direct.add(1, kind)
        found = await self._ask(lambda client: read_network(client, kind, namespace, name))
        self._asked.pop((kind, namespace, name), None)
        if found is None or _is_too_large(found):
            return found
        kept, unkept = (_keep_owner if kind in OWNERS else _keep_network)(found)
        if not isinstance(kept, Unkept):
            self._asked[kind, namespace, name] = (unkept.version, kept, _size(kept))
            while sum(size for _, _, size in self._asked.values()) > BUDGET:
                self._asked.popitem(last=False)
        return found

    async def labels(self, pod: Pod) -> Mapping[str, str]:
        """A pod's labels: the runtime does not pass them. Needs `labels`.

        Raises CniError: as `pod`.
        """
        known = self.pods.get(pod.namespace, pod.name)
        if known is None or not known.is_it(pod.uid):
            known = await self._ask(lambda client: read_pod(client, pod.namespace, pod.name, pod.uid))
        return known.labels

    async def annotate(self, pod: Pod, annotations: Mapping[str, str], shorter: Shorter) -> str:
        self.writer.add(pod, annotations)
        return ""

    async def event(self, pod: Pod, reason: str, message: str, *, warning: bool = False) -> None:
        self.writer.reporter.add(pod_event(pod, reason, message, warning=warning))

    async def _ask(self, question: Callable[[Client], R]) -> R:
        def ask() -> R:
            if not hasattr(self._local, "asker"):
                self._local.asker = Asker(self._connect)
            asker: Asker = self._local.asker
            return asker.ask(question)

        return await asyncio.get_running_loop().run_in_executor(self._threads, ask)

    def _ages(self) -> dict[tuple[str, ...], float]:
        now = time.monotonic()
        return {(watch.name,): now - watch.heard for watch in self.watches if watch.heard}
