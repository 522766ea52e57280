"""What the agent knows of the cluster: this node's pods and the network objects, kept current by watches.

Each resource has a `Watch`, a thread that lists and then watches it for as long as the agent lives; what it holds is
replaced in one step, so the event loop reads it without a lock. While the API server is away, what was known goes on
being served. `CachedKube` puts them together as the `Kube` that `serve` is given. Where the cache cannot answer (a pod
that the watch has not seen yet, or of another UID), it asks the API server, in a thread, so that a call never fails
for the cache's being behind.
"""

from __future__ import annotations

import asyncio
import http.client
import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Generic, TypeVar
from urllib.parse import urlencode

from genie.agent.metrics import Metrics
from genie.agent.writer import Writer
from genie.cni.errors import CniError, Code
from genie.kube import NETWORK_OBJECTS, Client, Pod, Shorter, pod_event, read_network, read_pod

T = TypeVar("T")
R = TypeVar("R")
Connect = Callable[[float], Client]
"""Makes a client, given its time limit in seconds, with the credentials that hold now."""

PAGE = 250
REQUEST_TIMEOUT = 10.0
WATCH_SECONDS = 300
"""How long the API server is asked to keep a watch open; it sends a bookmark about every minute."""
SILENCE = 150.0
"""Seconds without a word after which a watch is taken for dead."""
ABSENT_SECONDS = 10.0
"""How often a resource that the API server does not have (no such CRD yet) is looked for."""
BACKOFF = (0.2, 30.0)
_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"

log = logging.getLogger(__name__)


class _ExpiredError(Exception):
    """The API server no longer has the changes since the version that we know: list again."""


class Asker:
    """One kept client for one thread at a time, made anew after a failure: the credentials may be others by then."""

    def __init__(self, connect: Connect, timeout: float = REQUEST_TIMEOUT) -> None:
        self._connect, self._timeout = connect, timeout
        self._client: Client | None = None

    def ask(self, question: Callable[[Client], R]) -> R:
        """Put a question to the API server.

        Raises:
            CniError: as the question does; 11 when the connection breaks.
        """
        try:
            if self._client is None:
                self._client = self._connect(self._timeout)
            return question(self._client)
        except CniError as error:
            if error.code != Code.UNKNOWN_CONTAINER:
                self.close()
            raise
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise CniError(Code.TRY_AGAIN, f"the API server broke off: {error or type(error).__name__}") from error

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


class Watch(Generic[T]):
    """One resource, as far as it is needed: (namespace, name) → what `keep` makes of an object.

    items: replaced, never changed in place while it is listed; single changes are atomic. live: absence from
    `items` means absence in the cluster. heard: when the API server last sent anything (time.monotonic).
    """

    def __init__(self, name: str, path: str, connect: Connect, keep: Callable[[Mapping[str, Any]], T], **selector: str):
        self.name, self._path, self._connect, self._keep = name, path, connect, keep
        self._selector = selector
        self.items: dict[tuple[str, str], T] = {}
        self.live = False
        self.heard = 0.0
        self.listed = threading.Event()
        self._version = ""
        self._stopped = threading.Event()
        self._complained = ""

    def start(self) -> None:
        threading.Thread(target=self._run, name=f"watch-{self.name}", daemon=True).start()

    def stop(self) -> None:
        """Ask the thread to end; a daemon thread, so nobody need wait for it."""
        self._stopped.set()

    def get(self, namespace: str, name: str) -> T | None:
        return self.items.get((namespace, name))

    def _run(self) -> None:
        asking, streaming = Asker(self._connect), Asker(self._connect, SILENCE)
        wait = BACKOFF[0]
        while not self._stopped.is_set():
            began = time.monotonic()
            try:
                if self._version or asking.ask(self._list):
                    streaming.ask(self._watch)
                    pause = 0.0 if time.monotonic() - began > 1 else wait
                else:
                    pause = ABSENT_SECONDS
            except _ExpiredError:
                self._version, pause = "", 0.0
            except Exception as error:  # whatever it is, this thread must go on: nothing else keeps the cache current
                self.live, self._version, pause = False, "", wait
                asking.close()
                self._complain(error)
            # Jitter, so that the agents of all nodes do not come back at once.
            wait = min(wait * 2, BACKOFF[1]) if pause else BACKOFF[0]
            if pause:
                self._stopped.wait(pause * random.uniform(0.5, 1.0))

    def _list(self, client: Client) -> bool:
        """All objects, a page at a time; False where the API server has no such resource."""
        items: dict[tuple[str, str], T] = {}
        query = {"limit": str(PAGE), **self._selector}
        while True:
            status, data = client.request("GET", f"{self._path}?{urlencode(query)}")
            if status == 404:
                self._listed({}, "")
                return False
            if status == 410:  # the list's own continuation is too old
                raise _ExpiredError
            if status != 200 or not isinstance(data, dict):
                raise CniError(Code.TRY_AGAIN, f"the API server answers {status} to a list of {self.name}")
            for item in data.get("items") or []:
                items[_key(item)] = self._keep(item)
            meta = data.get("metadata") or {}
            if not meta.get("continue"):
                self._listed(items, str(meta.get("resourceVersion") or ""))
                return True
            query["continue"] = meta["continue"]

    def _listed(self, items: dict[tuple[str, str], T], version: str) -> None:
        self.items, self._version = items, version
        self.heard, self.live = time.monotonic(), True
        if self._complained:
            log.info("the API server is back", extra={"fields": {"resource": self.name}})
            self._complained = ""
        self.listed.set()

    def _watch(self, client: Client) -> None:
        """Until the API server ends it, which it does now and then."""
        query = {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(int(WATCH_SECONDS * random.uniform(0.8, 1.0))),
            **self._selector,
        }
        for event in client.stream(f"{self._path}?{urlencode(query)}"):
            self.heard = time.monotonic()
            kind, item = event.get("type"), event.get("object") or {}
            if kind == "ERROR":
                if item.get("code") == 410:
                    raise _ExpiredError
                raise CniError(Code.TRY_AGAIN, f"the watch of {self.name} ended: {item.get('message')}")
            if kind in ("ADDED", "MODIFIED"):
                self.items[_key(item)] = self._keep(item)
            elif kind == "DELETED":
                self.items.pop(_key(item), None)
            self._version = str((item.get("metadata") or {}).get("resourceVersion") or self._version)
            if self._stopped.is_set():
                return

    def _complain(self, error: Exception) -> None:
        """Once for each kind of trouble, not once for each attempt."""
        complaint = str(error) if isinstance(error, CniError) else f"{type(error).__name__}: {error}"
        if complaint != self._complained:
            self._complained = complaint
            fields = {"resource": self.name, "error": complaint}
            log.warning("a watch failed; going on with what is known", extra={"fields": fields})


def _key(item: Mapping[str, Any]) -> tuple[str, str]:
    meta = item.get("metadata") or {}
    return str(meta.get("namespace") or ""), str(meta.get("name") or "")


def _small_pod(item: Mapping[str, Any]) -> Pod:
    pod = Pod.of(item)
    return replace(pod, annotations={key: value for key, value in pod.annotations.items() if key != _APPLIED})


def _small_network(item: Mapping[str, Any]) -> Mapping[str, Any]:
    meta = item.get("metadata") or {}
    kept = {key: meta[key] for key in ("namespace", "name", "uid", "annotations", "labels") if key in meta}
    if isinstance(notes := kept.get("annotations"), dict):
        kept["annotations"] = {key: value for key, value in notes.items() if key != _APPLIED}
    return {"metadata": kept, "spec": item.get("spec")}


class CachedKube:
    """The agent's Kube. node: whose pods to watch."""

    def __init__(self, connect: Connect, node: str, writer: Writer, metrics: Metrics) -> None:
        self.writer, self.metrics = writer, metrics
        self.pods = Watch("pods", "/api/v1/pods", connect, _small_pod, fieldSelector=f"spec.nodeName={node}")
        self.networks = {
            kind: Watch(resource, f"/apis/{group}/{resource}", connect, _small_network)
            for kind, (group, resource) in NETWORK_OBJECTS.items()
        }
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
        # Without a UID, a pod that was deleted and made again would pass for the one before.
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
        """What the runtime hands over counts. If the watch has another pod of the name, one of the two is behind, and
        the API server is asked which; without it, the runtime is believed.
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
        if known is not None or (watch.live and not needed):
            return known
        self.metrics.api_direct.add(1, kind)
        try:
            return await self._ask(lambda client: read_network(client, kind, namespace, name))
        except CniError:
            if watch.listed.is_set():  # it was not there when the API server was
                return None
            raise

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
