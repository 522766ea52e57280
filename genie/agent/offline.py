"""Network objects kept on the node's disk, so that pods come up after a reboot while the API server is away.

`OfflineKube` is the agent's Kube: it stores each network object that an ADD reads, and the names that do not exist. The
stored ones are used while the API server has not answered since the agent's start, or does not answer now. While the
watches are live, the stored objects are compared with them once a minute, so they are as current as the API server's
last answer.

Number and bytes are limited. If there is no room, the namespace with most objects loses its least recently used one.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from genie.agent.cache import NO_DEFAULT, CachedKube, Connect, Unkept
from genie.agent.metrics import Metrics
from genie.agent.writer import Writer
from genie.cni import regular
from genie.cni.errors import CniError, Code
from genie.kube import OWNERS
from genie.log import Complaint, Log

OBJECTS = "objects"
"""The directory of the stored objects, below that of the records."""
ENTRIES = 1024
LARGEST = 1 << 18
"""The limit for one object, in bytes; larger ones are not stored."""
TOTAL = 16 << 20
REFRESH = 60.0
_CHECKED, _SUFFIX = "checked", ".json"
_ANY_NAMESPACE = ("Namespace", "", "")
"""The key for all namespaces: `NO_DEFAULT` if, at the last comparison, none of the cluster had default networks."""
_RECENT = 128
"""The limit for objects that are remembered as unchanged on disk."""

R = TypeVar("R")
Key = tuple[str, str, str]
"""Kind, namespace, name."""
log = Log(__name__)


@dataclass(frozen=True)
class Kept:
    """One stored network object; None: there was none of that name."""

    key: Key
    found: Mapping[str, Any] | None


class KeptObjects:
    """A file for each object. For one thread at a time.

    The file name is made of hashes of the namespace and of the rest: names may be too long for a file name.
    """

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def read(self, key: Key) -> Kept | None:
        """The object stored under the key; None if there is none, or it is not readable."""
        path = self._path(key)
        with suppress(OSError):
            kept = _load(path)
            if kept is not None and kept.key == key:
                os.utime(path)  # note the time of use
                return kept
        return None

    def write(self, kept: Kept) -> None:
        """Store an object, atomically, also if the power fails; an object that is too large is not stored.

        Raises OSError: the disk does not take it.
        """
        path = self._path(kept.key)
        data = json.dumps([*kept.key, kept.found]).encode()
        if len(data) > LARGEST:
            with suppress(FileNotFoundError):
                os.unlink(path)
            return
        with suppress(OSError):
            if _content(path) == data:
                return
        os.makedirs(self.directory, 0o700, exist_ok=True)
        regular.put(path, data)
        self._make_room()

    def __iter__(self) -> Iterator[Kept]:
        """Every readable stored object; damaged files are removed."""
        for path, _, _ in self._files():
            with suppress(OSError):  # such as too many open files: the object may be readable later
                if kept := _load(path):
                    yield kept
                else:
                    os.unlink(path)

    def checked(self) -> float | None:
        """When the stored objects were last compared with the API server, in seconds since 1970; None: never."""
        with suppress(OSError):
            return os.stat(f"{self.directory}/{_CHECKED}").st_mtime
        return None

    def check(self) -> None:
        """Note that the stored objects match the API server now.

        Raises OSError: the disk does not take it.
        """
        os.makedirs(self.directory, 0o700, exist_ok=True)
        with open(f"{self.directory}/{_CHECKED}", "wb"):
            pass
        regular.swept(self.directory, REFRESH)  # in an update another agent may be writing

    def _make_room(self) -> None:
        files = sorted(self._files(), key=lambda file: file[2])  # least recently used first
        total = sum(size for _, size, _ in files)
        of = Counter(_namespace(path) for path, _, _ in files)
        while len(files) > ENTRIES or total > TOTAL:
            most = max(of.values())
            victim = next(file for file in files if of[_namespace(file[0])] == most)
            files.remove(victim)
            total -= victim[1]
            of[_namespace(victim[0])] -= 1
            with suppress(OSError):
                os.unlink(victim[0])

    def _files(self) -> list[tuple[str, int, float]]:
        """Path, bytes and time of last use of each."""
        found = []
        with suppress(FileNotFoundError), os.scandir(self.directory) as entries:
            for entry in entries:
                with suppress(OSError):
                    if entry.name.endswith(_SUFFIX):
                        found.append((entry.path, entry.stat().st_size, entry.stat().st_mtime))
        return found

    def _path(self, key: Key) -> str:
        kind, namespace, name = key
        hashed = [hashlib.sha256(text.encode(errors="replace")).hexdigest() for text in (namespace, f"{kind}/{name}")]
        return f"{self.directory}/{hashed[0][:16]}-{hashed[1][:40]}{_SUFFIX}"


def _namespace(path: str) -> str:
    return os.path.basename(path).partition("-")[0]


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(LARGEST + 1)


def _load(path: str) -> Kept | None:
    """The object in a file; None if it is damaged. Raises OSError: it cannot be read."""
    try:
        kind, namespace, name, found = json.loads(_content(path))
    except (ValueError, TypeError, RecursionError):
        return None
    if not all(isinstance(part, str) for part in (kind, namespace, name)) or not isinstance(found, dict | None):
        return None
    return Kept((kind, namespace, name), found)


class OfflineKube(CachedKube):
    """The agent's Kube, with the objects on disk. directory: their place."""

    def __init__(
        self, connect: Connect, node: str, writer: Writer, metrics: Metrics, directory: str, *, labels: bool = False
    ) -> None:
        super().__init__(connect, node, writer, metrics, labels=labels)
        self.kept = KeptObjects(directory)
        self._disk = ThreadPoolExecutor(1, "kept")
        self._recent: OrderedDict[Key, Mapping[str, Any] | None] = OrderedDict()
        self._complaint = Complaint(log, "network objects cannot be kept for when the API server is away")

    def stop(self) -> None:
        super().stop()
        self._disk.shutdown(wait=False, cancel_futures=True)

    async def network(self, kind: str, namespace: str, name: str, *, needed: bool = False) -> Mapping[str, Any] | None:
        """The object from CachedKube; from disk, if the API server has not answered yet or does not answer.

        Raises CniError: 11; the API server does not answer, and nothing is stored under this name.
        """
        key = (kind, namespace, name)
        if not self.networks[kind].listed.is_set() and (kept := await self._stored(key, needed=needed)):
            return kept.found
        try:
            found = await super().network(kind, namespace, name, needed=needed)
        except CniError as error:
            if error.code != Code.TRY_AGAIN:
                raise
            if kept := await self._stored(key, needed=needed):
                return kept.found
            raise CniError(
                Code.TRY_AGAIN,
                f"the {kind} {f'{namespace}/{name}'.lstrip('/')} is not known on this node, and {error.msg}"
                if kind in OWNERS
                else f"whether there is a {kind} {namespace}/{name} is not known on this node, and {error.msg}",
            ) from error
        self._keep(key, found)
        return found

    async def _stored(self, key: Key, *, needed: bool) -> Kept | None:
        """The stored object, or with `needed` unset, that there is none. A namespace that no pod was in is as the
        others, if none of them all had default networks.
        """
        places = (key, _ANY_NAMESPACE) if key[0] == "Namespace" else (key,)
        kept = await self._on_disk(lambda: next(filter(None, map(self.kept.read, places)), None))
        if kept is None or (kept.found is None and needed):
            return None
        self.metrics.offline.add(1, key[0])
        return kept

    async def refresh(self) -> None:
        """Compare the stored objects with the watches that are live."""
        if all(watch.live for watch in self.networks.values()):
            await self._on_disk(self._refresh)

    def _refresh(self) -> None:
        for kept in list(self.kept):
            kind, namespace, name = kept.key
            if kept.key == _ANY_NAMESPACE:
                continue
            watch = self.networks.get(kind)
            current = watch.get(namespace, name) if watch else None
            if current is None or isinstance(
                current, Mapping
            ):  # otherwise the watch has only noted that the object exists
                self.kept.write(Kept(kept.key, current))
        plain = all(one is NO_DEFAULT for one in self.networks["Namespace"].items.values())
        self.kept.write(Kept(_ANY_NAMESPACE, NO_DEFAULT if plain else None))
        if not isinstance(own := self.networks["Node"].get("", self.node), Unkept):
            self.kept.write(Kept(("Node", "", self.node), own))
        self.kept.check()

    def _keep(self, key: Key, found: Mapping[str, Any] | None) -> None:
        """Store an object if it is new, off the event loop; with the next ADD again if the disk did not take it."""

        def store() -> None:
            self.kept.write(Kept(key, found))
            self._recent[key] = found
            if len(self._recent) > _RECENT:
                self._recent.popitem(last=False)

        if self._recent.get(key, self) is not found:  # a value that no object is, because None is one
            asyncio.get_running_loop().create_task(self._on_disk(store))

    async def _on_disk(self, work: Callable[[], R]) -> R | None:
        """Store an object. A disk error is only logged: pods need the file only while the API server is away."""
        try:
            done = await asyncio.get_running_loop().run_in_executor(self._disk, work)
        except (OSError, RuntimeError) as error:  # RuntimeError: the agent is ending
            if not self._complaint.text:  # the path in the error is another one for each object
                self._complaint.about(error, directory=self.kept.directory)
            return None
        self._complaint.over()
        return done
