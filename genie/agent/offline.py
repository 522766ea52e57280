"""Network objects kept on the node's disk, so that pods come up after a reboot while the API server is away.

`OfflineKube` is the agent's Kube: what an ADD learns of a network object, and that there is none of a name, is kept. It
is used where the API server has not been heard from since the agent's start, or does not answer. While the watches are
live, what is kept is compared with them once a minute, so it is as true as the last time that the API server answered.

Bounded in number and bytes; where there is no room, the namespace that has most loses what was used for longest ago.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from genie.agent.cache import CachedKube, Connect
from genie.agent.metrics import Metrics
from genie.agent.writer import Writer
from genie.cni.errors import CniError, Code

OBJECTS = "objects"
"""The directory of what is kept, below that of the records."""
ENTRIES = 1024
LARGEST = 1 << 18
"""Bytes of one object; larger ones are not kept."""
TOTAL = 16 << 20
REFRESH = 60.0
_CHECKED, _SUFFIX, _NEW = "checked", ".json", ".new"
_RECENT = 128
"""Objects of which it is remembered in memory that the disk has them as they are."""

R = TypeVar("R")
Key = tuple[str, str, str]
"""Kind, namespace, name."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kept:
    """One network object as it was; None: there was none of that name."""

    key: Key
    found: Mapping[str, Any] | None


class KeptObjects:
    """A file for each object. For one thread at a time.

    The file of an object is named after hashes of its namespace and of the rest: names may be longer than a file's.
    """

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def read(self, key: Key) -> Kept | None:
        """What is kept under the key; None if nothing is, or nothing that can be read."""
        path = self._path(key)
        kept = _load(path)
        if kept is None or kept.key != key:
            return None
        with suppress(OSError):
            os.utime(path)  # used now
        return kept

    def write(self, kept: Kept) -> None:
        """Keep this, whole or not at all, also over a power cut; an object that is too large is not kept.

        Raises:
            OSError: the disk does not take it.
        """
        path = self._path(kept.key)
        data = json.dumps([*kept.key, kept.found]).encode()
        if len(data) > LARGEST:
            with suppress(FileNotFoundError):
                os.unlink(path)
            return
        if _content(path) == data:
            return
        os.makedirs(self.directory, 0o700, exist_ok=True)
        new = f"{path}.{os.getpid()}{_NEW}"
        try:
            with open(new, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(new, path)
        except OSError:
            with suppress(OSError):
                os.unlink(new)
            raise
        self._make_room()

    def __iter__(self) -> Iterator[Kept]:
        """Everything that is kept and can be read; what cannot is removed."""
        for path, _, _ in self._files():
            if kept := _load(path):
                yield kept
            else:
                with suppress(OSError):
                    os.unlink(path)

    def checked(self) -> float | None:
        """When what is kept was last compared with the API server, in seconds since 1970; None: never."""
        with suppress(OSError):
            return os.stat(f"{self.directory}/{_CHECKED}").st_mtime
        return None

    def check(self) -> None:
        """Note that what is kept is what the API server has now.

        Raises:
            OSError: the disk does not take it.
        """
        os.makedirs(self.directory, 0o700, exist_ok=True)
        with open(f"{self.directory}/{_CHECKED}", "wb"):
            pass
        self._tidy()

    def _tidy(self) -> None:
        """Remove what a writer left that was ended; of a minute ago: in an update another agent may be writing."""
        for name in os.listdir(self.directory):
            path = f"{self.directory}/{name}"
            with suppress(OSError):
                if name.endswith(_NEW) and time.time() - os.stat(path).st_mtime > REFRESH:
                    os.unlink(path)

    def _make_room(self) -> None:
        files = sorted(self._files(), key=lambda file: file[2])  # what was used for longest ago comes first
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
    try:
        with open(path, "rb") as file:
            return file.read(LARGEST + 1)
    except OSError:
        return b""


def _load(path: str) -> Kept | None:
    try:
        kind, namespace, name, found = json.loads(_content(path))
    except (ValueError, TypeError, RecursionError):
        return None
    if not all(isinstance(part, str) for part in (kind, namespace, name)) or not isinstance(found, dict | None):
        return None
    return Kept((kind, namespace, name), found)


class OfflineKube(CachedKube):
    """The agent's Kube, with what its disk knows. directory: where that is kept."""

    def __init__(self, connect: Connect, node: str, writer: Writer, metrics: Metrics, directory: str) -> None:
        super().__init__(connect, node, writer, metrics)
        self.kept = KeptObjects(directory)
        self._disk = ThreadPoolExecutor(1, "kept")
        self._recent: OrderedDict[Key, Mapping[str, Any] | None] = OrderedDict()
        self._complained = False

    def stop(self) -> None:
        super().stop()
        self._disk.shutdown(wait=False, cancel_futures=True)

    async def network(self, kind: str, namespace: str, name: str, *, needed: bool = False) -> Mapping[str, Any] | None:
        """As CachedKube has it; before the API server was heard from, and where it does not answer, as it was kept.

        Raises:
            CniError: 11; the API server does not answer, and nothing is kept of this name.
        """
        key = (kind, namespace, name)
        if not self.networks[kind].listed.is_set():
            kept = await self._on_disk(lambda: self.kept.read(key))
            if kept and (kept.found is not None or not needed):
                self.metrics.offline.add(1, kind)
                return kept.found
        try:
            found = await super().network(kind, namespace, name, needed=needed)
        except CniError as error:
            if error.code != Code.TRY_AGAIN:
                raise
            kept = await self._on_disk(lambda: self.kept.read(key))
            if kept and (kept.found is not None or not needed):
                self.metrics.offline.add(1, kind)
                return kept.found
            raise CniError(
                Code.TRY_AGAIN,
                f"whether there is a {kind} {namespace}/{name} is not known on this node, and {error.msg}",
            ) from error
        self._keep(key, found)
        return found

    async def refresh(self) -> None:
        """Compare what is kept with the watches, as far as these are live."""
        if all(watch.live for watch in self.networks.values()):
            await self._on_disk(self._refresh)

    def _refresh(self) -> None:
        for kept in list(self.kept):
            kind, namespace, name = kept.key
            watch = self.networks.get(kind)
            current = watch.get(namespace, name) if watch else None
            if current is None or isinstance(current, Mapping):  # else the watch knows that it is there, and no more
                self.kept.write(Kept(kept.key, current))
        self.kept.check()

    def _keep(self, key: Key, found: Mapping[str, Any] | None) -> None:
        """Off the event loop, and only what is new."""
        if key in self._recent and self._recent[key] is found:
            return
        self._recent[key] = found
        if len(self._recent) > _RECENT:
            self._recent.popitem(last=False)
        asyncio.get_running_loop().create_task(self._on_disk(lambda: self.kept.write(Kept(key, found))))

    async def _on_disk(self, work: Callable[[], R]) -> R | None:
        """What the disk refuses is logged: pods come up without it while the API server answers."""
        try:
            done = await asyncio.get_running_loop().run_in_executor(self._disk, work)
        except (OSError, RuntimeError) as error:  # RuntimeError: the agent is ending
            if not self._complained:
                self._complained = True
                fields = {"directory": self.kept.directory, "error": str(error)}
                log.warning("network objects cannot be kept for when the API server is away", extra={"fields": fields})
            return None
        self._complained = False
        return done
