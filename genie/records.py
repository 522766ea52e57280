"""What genie keeps on the node's disk of a container's attachments, so that a DEL needs nobody else.

A record is written before the first delegate is called, with all that a DEL of each network takes: its configuration as
it was then, its interface, its arguments. So a crash at any point leaks nothing, and neither a pod that is gone, nor an
annotation that changed, nor an API server that is away keeps a DEL from its work. After the ADD a second line is
added, the record once more with the results, for DEL and CHECK hand them to the delegates as prevResult; the last line
that can be read counts.

A record survives a power cut, or an address would stay reserved for ever: a plugin's books are on the same disk. Its
bytes and its name are fsynced while the first delegate runs, for a sync takes about as long as a delegate does, and an
ADD goes no further before both have ended. So a power cut in between can orphan nothing but what the networks did that
began first, and a DEL without a record asks these (see verbs/delete.py). The second line is not synced: a pod does not
survive a power cut, and without its results the DEL asks each plugin all the same. Nor is a removal: a record that
comes back asks networks to let go of what they do not have, which is no error.

A record that is damaged all the same keeps nobody from a DEL, which does without and sets the file aside, for an
administrator to look at.
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from genie.cni import result as cni_result
from genie.cni.config import NetworkConfig
from genie.cni.errors import CniError, Code
from genie.cni.fields import Fields, decode, undecodable
from genie.cni.result import Result

SUFFIX = ".json"
ASIDE = ".damaged"  # after SUFFIX
NEW = ".new"  # a record that is being written; it lives as long as a write takes, unless its writer is ended
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


@dataclass(frozen=True, kw_only=True)
class RecordedAttachment:
    """One attachment of a record: enough to DEL, CHECK and report it without looking anything up."""

    label: str
    network: NetworkConfig
    container_id: str  # what its delegates get as CNI_CONTAINERID
    ifname: str
    runtime_config: Mapping[str, Any] = field(default_factory=dict)
    default_route: tuple[str, ...] | None = None  # the pod asked for its default route here, by these gateways
    result: Result | None = None  # of the last plugin that succeeded; None: none did
    left: tuple[int, ...] | None = None  # the plugins that a DEL has to call, by position in the chain; None: all

    def to_json(self) -> dict[str, Any]:
        network = self.network
        return {
            "label": self.label,
            "containerID": self.container_id,
            "ifname": self.ifname,
            "runtimeConfig": dict(self.runtime_config),
            "defaultRoute": None if self.default_route is None else list(self.default_route),
            "network": {
                "name": network.name,
                "cniVersion": network.cni_version,
                "source": network.source,
                "disableCheck": network.disable_check,
                "disableGC": network.disable_gc,
                "plugins": list(network.plugins),
            },
            "result": cni_result.to_json(self.result, "1.1.0") if self.result else None,
            **({} if self.left is None else {"left": list(self.left)}),
        }

    @classmethod
    def of(cls, read: Fields) -> RecordedAttachment:
        network, result = read.inner("network"), read.data.get("result")
        plugins = network.objects("plugins")
        for plugin in plugins:
            plugin.string("type")
        if not plugins:
            raise network.wrong("plugins", "at least one plugin")
        return cls(
            label=read.string("label"),
            container_id=read.string("containerID"),
            ifname=read.string("ifname"),
            runtime_config=read.object("runtimeConfig"),
            default_route=None if read.data.get("defaultRoute") is None else read.strings("defaultRoute"),
            network=NetworkConfig(
                name=network.string("name"),
                cni_version=network.string("cniVersion"),
                plugins=tuple(plugin.data for plugin in plugins),
                source=network.string("source"),
                is_list=True,
                disable_check=network.boolean("disableCheck"),
                disable_gc=network.boolean("disableGC"),
                raw={},
            ),
            result=None if result is None else cni_result.parse(result, "1.1.0"),
            left=None if read.data.get("left") is None else _positions(read, len(plugins)),
        )


@dataclass(frozen=True, kw_only=True)
class Record:
    """All attachments of one container, in selection order.

    annotations: to be written to the pod, stored so that a restarted agent can write them if it died first. arranged:
    genie's routes and rules in the pod, a line each, as routes.arrange returned them, for a CHECK to find them again.
    """

    container_id: str
    ifname: str
    netns: str
    args: str = ""
    namespace: str = ""
    pod: str = ""
    uid: str = ""
    attached: tuple[RecordedAttachment, ...] = ()
    complete: bool = False  # the ADD came to its end
    annotations: Mapping[str, str] = field(default_factory=dict)
    arranged: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "version": 1,
            "containerID": self.container_id,
            "ifname": self.ifname,
            "netns": self.netns,
            "args": self.args,
            "namespace": self.namespace,
            "pod": self.pod,
            "uid": self.uid,
            "complete": self.complete,
            "attachments": [attached.to_json() for attached in self.attached],
            "annotations": dict(self.annotations),
            "arranged": list(self.arranged),
        }

    @classmethod
    def of(cls, data: object) -> Record:
        """What was written as JSON. What is damaged shows here, not when a delegate is to be called.

        Raises:
            CniError: 6; it is not a record.
        """
        read = Fields(data, "record", undecodable, strict=True)
        annotations = read.inner("annotations")
        return cls(
            container_id=read.string("containerID"),
            ifname=read.string("ifname"),
            netns=read.string("netns"),
            args=read.string("args"),
            namespace=read.string("namespace"),
            pod=read.string("pod"),
            uid=read.string("uid"),
            attached=tuple(map(RecordedAttachment.of, read.objects("attachments"))),
            complete=read.boolean("complete"),
            annotations={key: annotations.string(key) for key in annotations.data},
            arranged=read.strings("arranged"),
        )


def _positions(read: Fields, plugins: int) -> tuple[int, ...]:
    positions = read.items("left")
    if not all(isinstance(each, int) and 0 <= each < plugins for each in positions):
        raise read.wrong("left", f"positions below {plugins}")
    return tuple(positions)


class DamagedError(CniError):
    """A record that cannot be read. The file name still identifies the container."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(
            Code.DECODING_FAILURE,
            f"the record {path} is damaged ({why}): a DEL of its container does without, and sets it aside",
        )
        self.path = path
        name = os.path.basename(path).removesuffix(SUFFIX)
        self.container_id, _, self.ifname = name.partition("@")


@contextmanager
def _disk(doing: str) -> Iterator[None]:
    """Raise what the disk refuses as CniError 5, which says what was being done."""
    try:
        yield
    except OSError as error:
        raise CniError(Code.IO_FAILURE, f"cannot {doing}: {error.strerror}") from error


def _modified(path: str) -> float:
    """When a file was last written to, in seconds since 1970; now, if it is not there any more."""
    try:
        return os.stat(path).st_mtime
    except OSError:
        return time.time()


def _line(record: Record) -> bytes:
    return json.dumps(record.to_json(), separators=(",", ":")).encode() + b"\n"


class Records:
    """The records of a node: one file for each container and interface of the runtime's."""

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def read(self, container_id: str, ifname: str) -> Record | None:
        """The record, or None when there is none.

        Raises:
            DamagedError: what it says cannot be understood.
            CniError: 5; it cannot be read.
        """
        return self._load(self._path(container_id, ifname))

    def write(self, record: Record) -> None:
        """Put the record on disk, whole or not at all, so that it survives a power cut. It may take a while.

        Raises:
            CniError: 5; the disk does not take it. The former one is still there.
        """
        self._put(record, synced=True)
        self._sync_names(self.directory)

    def begin(self, record: Record) -> Callable[[], None]:
        """Put the record on disk, whole or not at all, before the first delegate runs. What this returns makes it
        survive a power cut, may take a while, and raises what this raises.

        Raises:
            CniError: 5; the disk does not take it. Nothing may be attached then.
        """
        file = self._put(record, synced=False)

        def sync() -> None:
            with _disk(f"write the record of {record.container_id} in {self.directory}"), file:
                os.fsync(file.fileno())
            self._sync_names(self.directory)

        return sync

    def _put(self, record: Record, *, synced: bool) -> BinaryIO:
        """Returns the record's file, still open."""
        path = self._path(record.container_id, record.ifname)
        # of one writer alone: a DEL may come while an ADD that its runtime gave up is still at work
        new = f"{path}.{os.getpid()}.{time.monotonic_ns()}{NEW}"
        with _disk(f"write the record {path}"):
            try:
                handle = os.open(new, _CREATE, 0o600)
            except FileNotFoundError:
                self._make(self.directory)
                handle = os.open(new, _CREATE, 0o600)
            file = os.fdopen(handle, "wb")
            try:
                file.write(_line(record))
                file.flush()
                if synced:
                    os.fsync(handle)
                os.rename(new, path)
            except OSError:
                with suppress(OSError):
                    os.unlink(new)
                with suppress(OSError):
                    file.close()
                raise
        return file

    def make(self) -> None:
        """Make the directory, if need be.

        Raises:
            CniError: 5; the disk does not take it.
        """
        with _disk(f"make {self.directory}"):
            self._make(self.directory)

    def _make(self, directory: str) -> None:
        """Make the directory and those above it, each so that it survives a power cut."""
        above = os.path.dirname(directory) or "."
        if not os.path.isdir(directory):
            self._make(above)
            os.makedirs(directory, 0o700, exist_ok=True)
            self._sync_names(above)

    def _sync_names(self, directory: str) -> None:
        with _disk(f"write the names in {directory}"):
            handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(handle)
            except OSError as error:
                if error.errno != errno.EINVAL:  # a file system without it
                    raise
            finally:
                os.close(handle)

    def complete(self, record: Record) -> None:
        """Add to a record that is on disk how its ADD went: half the time of writing it anew.

        Raises:
            CniError: 5; the disk does not take it, or a DEL has removed the record meanwhile. The former line counts.
        """
        path = self._path(record.container_id, record.ifname)
        data = _line(record)
        with _disk(f"complete the record {path}"):
            handle = os.open(path, _APPEND)
            try:
                if os.write(handle, data) < len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            finally:
                os.close(handle)

    def remove(self, container_id: str, ifname: str) -> None:
        """Forget a container, with what a writer that was ended left of it; forgetting what is not there is fine.

        Raises:
            CniError: 5; the disk does not let it go.
        """
        self._unlink(path := self._path(container_id, ifname))
        self._tidy(path)

    def _tidy(self, path: str) -> None:
        """Remove what writers of a record left that were ended."""
        name = f"{os.path.basename(path)}."
        for file in self._files():
            if file.startswith(name) and file.endswith(NEW):
                self._unlink(f"{self.directory}/{file}")

    def sweep(self, seconds: float) -> list[str]:
        """Remove what writers left that were ended that long ago; a write takes no time. Returns the paths.

        Raises:
            CniError: 5; the disk does not let one go.
        """
        gone = []
        for file in self._files():
            path = f"{self.directory}/{file}"
            if file.endswith(NEW) and time.time() - _modified(path) >= seconds:
                self._unlink(path)
                gone.append(path)
        return gone

    def _unlink(self, path: str) -> None:
        with _disk(f"remove the record {path}"), suppress(FileNotFoundError):
            os.unlink(path)

    def set_aside(self, damaged: DamagedError) -> str:
        """Take a damaged record out of the way. Returns its file's path from now on.

        Raises:
            CniError: 5; the disk does not let it go.
        """
        with _disk(f"rename the record {damaged.path}"), suppress(FileNotFoundError):  # by another DEL
            os.rename(damaged.path, damaged.path + ASIDE)
        self._tidy(damaged.path)
        return damaged.path + ASIDE

    def aside(self) -> list[str]:
        """The paths of the records that were set aside."""
        return [f"{self.directory}/{file}" for file in self._files() if file.endswith(SUFFIX + ASIDE)]

    def all(self) -> Iterator[Record | CniError]:
        """Every record, or what is wrong with it; those that another process removes meanwhile are passed over.

        Raises:
            CniError: 5; the directory cannot be read.
        """
        for file in self._files():
            if file.endswith(SUFFIX):
                try:
                    record = self._load(f"{self.directory}/{file}")
                except CniError as error:
                    yield error
                else:
                    if record:
                        yield record

    def dated(self) -> Iterator[tuple[float, Record]]:
        """Every readable record, with when it was last written, in seconds since 1970."""
        for record in self:
            with suppress(FileNotFoundError):  # a DEL came
                yield os.stat(self._path(record.container_id, record.ifname)).st_mtime_ns / 1e9, record

    def __iter__(self) -> Iterator[Record]:
        """Every readable record: what is wrong with another container's is not this one's business."""
        return (record for record in self.all() if isinstance(record, Record))

    def _files(self) -> list[str]:
        with _disk(f"read the records in {self.directory}"), suppress(FileNotFoundError):
            return sorted(os.listdir(self.directory))
        return []

    def _path(self, container_id: str, ifname: str) -> str:
        # both are checked against the specification's alphabet before they come here; a container's ID has no '@'
        return f"{self.directory}/{container_id}@{ifname}{SUFFIX}"

    def _load(self, path: str) -> Record | None:
        with _disk(f"read the record {path}"):
            try:
                with open(path, "rb") as file:
                    *lines, rest = file.read().split(b"\n")
            except FileNotFoundError:
                return None
            except IsADirectoryError as error:
                raise DamagedError(path, "it is a directory") from error
        why = "it is empty"
        for line in filter(None, (*reversed(lines), rest)):  # an earlier one lacks the results, no more
            try:
                record = Record.of(decode(line, "record"))
            except CniError as error:
                why = str(error)
                continue
            if self._path(record.container_id, record.ifname) == path:
                return record
            why = "it is another container's"
        raise DamagedError(path, why)
