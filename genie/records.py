"""Records of each container's attachments on the node's disk, so that a DEL needs nothing else.

A record is written before the first delegate is called, with all that the DEL of each network needs: its configuration
at that time, its interface, its arguments. So a crash at any point leaks nothing, and a DEL works even if the pod is
gone, an annotation has changed, or the API server is away. After the ADD a second line is added, the record with the
results, because DEL and CHECK pass them to the delegates as prevResult. The last readable line counts.

A record must survive a power cut, because the plugins' own files do; without it an address would stay reserved for
ever. Its bytes and its name are fsynced while the first delegate runs, because a sync takes about as long as a
delegate. The ADD waits for both. A power cut in between can only orphan the attachments of the networks that were
started first, and a DEL without a record calls these (see verbs/unrecorded.py). The second line is not synced: a pod
does not survive a power cut, and without the results the DEL still calls each plugin. A removal is not synced either:
a record that comes back only causes a DEL of attachments that do not exist, which is not an error.

If a record is damaged anyway, the DEL works without it, and sets the file aside for an administrator.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from genie.cni import result as cni_result
from genie.cni.config import IFNAME_IS, NetworkConfig, is_ifname, recorded
from genie.cni.errors import CniError, Code
from genie.cni.fields import DEEPEST, Fields, compact, decode, undecodable
from genie.cni.regular import NEW, NotRegularError, opened, swept
from genie.cni.result import IP, Result, Route

SUFFIX = ".json"
ASIDE = ".damaged"  # after SUFFIX
RECORD_MAX = 16 << 20
"""Bytes of the longest record: far more than genie writes for a pod with all that it may have."""
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


@dataclass(frozen=True, kw_only=True)
class RecordedAttachment:
    """One attachment of a record: enough for DEL, CHECK and status without any look-up.

    reported: the routes that the ADD reported for it, as genie arranged them; None if they are those of `result`.
    """

    label: str
    network: NetworkConfig
    container_id: str  # CNI_CONTAINERID for its delegates
    ifname: str
    runtime_config: Mapping[str, Any] = field(default_factory=dict)
    default_route: tuple[str, ...] | None = None  # the pod asked for its default route here, by these gateways
    result: Result | None = None  # from the last plugin that succeeded; None: none did
    reported: tuple[Route, ...] | None = None
    left: tuple[int, ...] | None = None  # the plugins that a DEL must call, by position in the chain; None: all

    @property
    def ips(self) -> tuple[IP, ...]:
        """The addresses of its result."""
        return self.result.ips if self.result else ()

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
            **({} if self.reported is None else {"reported": list(map(cni_result.route_json, self.reported))}),
            **({} if self.left is None else {"left": list(self.left)}),
        }

    @classmethod
    def of(cls, read: Fields) -> RecordedAttachment:
        network, result = recorded(read.inner("network")), read.data.get("result")
        if not is_ifname(ifname := read.string("ifname")):
            raise read.wrong("ifname", IFNAME_IS)
        return cls(
            label=read.string("label"),
            container_id=_variable(read, "containerID"),
            ifname=ifname,
            runtime_config=read.object("runtimeConfig"),
            default_route=None if read.data.get("defaultRoute") is None else read.strings("defaultRoute"),
            network=network,
            result=None if result is None else cni_result.parse(result),
            reported=None if read.data.get("reported") is None else _routes(read),
            left=None if read.data.get("left") is None else _positions(read, len(network.plugins)),
        )


@dataclass(frozen=True, kw_only=True)
class Record:
    """All attachments of one container, in selection order.

    annotations: for the pod, stored so that a restarted agent can still write them. arranged: genie's routes and rules
    in the pod, a line each, as routes.arrange returned them, for CHECK.
    """

    container_id: str
    ifname: str
    netns: str
    args: str = ""
    namespace: str = ""
    pod: str = ""
    uid: str = ""
    attached: tuple[RecordedAttachment, ...] = ()
    complete: bool = False  # the ADD is complete
    annotations: Mapping[str, str] = field(default_factory=dict)
    arranged: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        return self.container_id, self.ifname

    @property
    def title(self) -> str:
        """The pod's name, for people."""
        return f"{self.namespace}/{self.pod}" if self.pod else "(no pod)"

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
        """Read a record from JSON. Damage is found here, not later when a delegate is called.

        Raises CniError: 6; it is not a record.
        """
        read = Fields(data, "record", undecodable, strict=True)
        annotations, attached = read.inner("annotations"), read.objects("attachments")
        if not attached:  # it was never written so: what was attached is not known
            raise read.wrong("attachments", "at least one attachment")
        return cls(
            container_id=read.string("containerID"),
            ifname=read.string("ifname"),
            netns=_variable(read, "netns"),
            args=_variable(read, "args"),
            namespace=read.string("namespace"),
            pod=read.string("pod"),
            uid=read.string("uid"),
            attached=tuple(map(RecordedAttachment.of, attached)),
            complete=read.boolean("complete"),
            annotations={key: annotations.string(key) for key in annotations.data},
            arranged=read.strings("arranged"),
        )


def _variable(read: Fields, key: str) -> str:
    """A string that an environment variable can hold: any but one with a NUL."""
    if "\0" in (value := read.string(key)):
        raise read.wrong(key, "a string without NUL")
    return value


def _routes(read: Fields) -> tuple[Route, ...]:
    lax = Fields(read.data, read.where, undecodable)  # empty fields of a route are not written
    return cni_result.parse_routes(lax, "reported")


def attachments(records: Iterable[Record]) -> Iterator[RecordedAttachment]:
    return (one for record in records for one in record.attached)


def _positions(read: Fields, plugins: int) -> tuple[int, ...]:
    positions = read.items("left")
    if not all(isinstance(each, int) and 0 <= each < plugins for each in positions):
        raise read.wrong("left", f"positions below {plugins}")
    return tuple(positions)


class DamagedError(CniError):
    """A damaged record. The file name still identifies the container."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(
            Code.DECODING_FAILURE,
            f"the record {path} is damaged ({why}): a DEL of its container does without, and sets it aside",
        )
        self.path = path
        name = os.path.basename(path).removesuffix(SUFFIX)
        self.container_id, _, self.ifname = name.partition("@")
        self.key = (self.container_id, self.ifname)


class _Disk:
    """Raises a disk error as CniError 5. A class, because an ADD needs several, and `contextmanager` takes longer."""

    def __init__(self, doing: str) -> None:
        self._doing = doing

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: object, __: object) -> None:
        if isinstance(error, OSError):
            raise CniError(Code.IO_FAILURE, f"cannot {self._doing}: {error.strerror}") from error


def _bytes(path: str) -> bytes | None:
    """A record's file; None if there is none. Whatever lies in its place is damage, and is never waited for."""
    with _Disk(f"read the record {path}"):
        try:
            with opened(path) as file:
                size = os.fstat(file.fileno()).st_size
                if size > RECORD_MAX:
                    raise DamagedError(path, f"it has {size} bytes, of at most {RECORD_MAX}")
                return file.read()
        except FileNotFoundError:
            return None
        except IsADirectoryError as error:
            raise DamagedError(path, "it is a directory") from error
        except NotRegularError as error:
            raise DamagedError(path, "it is no file") from error
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:  # of an ID that no ADD could have written
                return None
            if error.errno not in (errno.ELOOP, errno.ENXIO):  # ENXIO: a socket
                raise
            raise DamagedError(path, f"it is no file: {error.strerror}") from error


def _line(record: Record) -> bytes:
    return compact(record.to_json()).encode() + b"\n"


class Records:
    """The records of a node: one file for each container and interface of the runtime's."""

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def read(self, container_id: str, ifname: str) -> Record | None:
        """Read the record; None if there is none.

        Raises DamagedError: its content is malformed.
        Raises CniError: 5; it cannot be read.
        """
        return self._load(self._path(container_id, ifname))

    def data(self, container_id: str, ifname: str) -> bytes | None:
        """The bytes of a record, for `parsed`; None if there is none. Raises the errors of `read`."""
        return _bytes(self._path(container_id, ifname))

    def parsed(self, container_id: str, ifname: str, data: bytes) -> Record:
        """A record from its bytes. Raises DamagedError."""
        return self._parsed(self._path(container_id, ifname), data)

    def write(self, record: Record) -> None:
        """Write the record to disk, atomically, so that it survives a power cut. This may take a while.

        Raises CniError: 5; it cannot be written. The previous one still exists.
        """
        self._put(record, synced=True)
        self._sync_names(self.directory)

    def begin(self, record: Record) -> Callable[[], None]:
        """Write the record to disk, atomically, before the first delegate runs. Call the returned function to sync it,
        so that it survives a power cut; that may take a while, and raises the same errors.

        Raises CniError: 5; it cannot be written. Then nothing may be attached.
        """
        file = self._put(record, synced=False)

        def sync() -> None:
            with _Disk(f"write the record of {record.container_id} in {self.directory}"), file:
                os.fsync(file.fileno())
            self._sync_names(self.directory)

        return sync

    def _put(self, record: Record, *, synced: bool) -> BinaryIO:
        """Write the record; returns its file, still open."""
        path = self._path(record.container_id, record.ifname)
        # a name for each writer: a DEL may come while an ADD that the runtime gave up on is still running
        new = f"{path}.{os.getpid()}.{time.monotonic_ns()}{NEW}"
        with _Disk(f"write the record {path}"):
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
        """Create the directory, if needed.

        Raises CniError: 5; it cannot be created.
        """
        with _Disk(f"make {self.directory}"):
            self._make(self.directory)

    def _make(self, directory: str) -> None:
        """Create the directory and its parents, each so that it survives a power cut."""
        if not os.path.isdir(directory):
            above = os.path.dirname(directory) or "."
            self._make(above)
            os.makedirs(directory, 0o700, exist_ok=True)
            self._sync_names(above)

    def _sync_names(self, directory: str) -> None:
        with _Disk(f"write the names in {directory}"):
            handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(handle)
            except OSError as error:
                if error.errno != errno.EINVAL:  # a file system without this feature
                    raise
            finally:
                os.close(handle)

    def complete(self, record: Record) -> None:
        """Add the result of an ADD to its record on disk: takes half the time of writing it again.

        Raises CniError: 5; it cannot be written, or a DEL has removed the record meanwhile. The previous line counts.
        """
        path = self._path(record.container_id, record.ifname)
        data = _line(record)
        with _Disk(f"complete the record {path}"):
            handle = os.open(path, _APPEND)
            try:
                if os.write(handle, data) < len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            finally:
                os.close(handle)

    def remove(self, container_id: str, ifname: str) -> None:
        """Remove a container's record, and files of writers that were killed. It is no error if there is none.

        Raises CniError: 5; the disk refuses it.
        """
        self._unlink(path := self._path(container_id, ifname))
        self._tidy(path)

    def _tidy(self, path: str) -> None:
        """Remove the files of a record's writers that were killed."""
        with _Disk(f"remove the files beside {path}"):
            swept(self.directory, prefix=f"{os.path.basename(path)}.")

    def sweep(self, seconds: float) -> list[str]:
        """Remove unfinished files that are older than this; a write takes almost no time. Returns the paths.

        Raises CniError: 5; one cannot be removed.
        """
        with _Disk(f"remove the unfinished files in {self.directory}"):
            return swept(self.directory, seconds)

    def _unlink(self, path: str) -> None:
        with _Disk(f"remove the record {path}"):
            try:
                os.unlink(path)
            except OSError as error:  # a read-only disk refuses it before it looks for the file
                none = error.errno in (errno.ENOENT, errno.ENAMETOOLONG)
                if not none and (error.errno != errno.EROFS or os.path.lexists(path)):
                    raise

    def set_aside(self, damaged: DamagedError) -> str:
        """Move a damaged record away. Returns the file's new path.

        Raises CniError: 5; the disk refuses it.
        """
        with _Disk(f"rename the record {damaged.path}"), suppress(FileNotFoundError):  # by another DEL
            os.rename(damaged.path, damaged.path + ASIDE)
        self._tidy(damaged.path)
        return damaged.path + ASIDE

    def aside(self) -> list[str]:
        """The paths of damaged records that were moved away."""
        return [f"{self.directory}/{file}" for file in self._files() if file.endswith(SUFFIX + ASIDE)]

    def all(self) -> Iterator[Record | CniError]:
        """Every record, or its error; a record that another process removes meanwhile is skipped.

        Raises CniError: 5; the directory cannot be read.
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
        """Every readable record, with the time of its last write in seconds since 1970."""
        for record in self:
            with suppress(FileNotFoundError):  # a DEL came
                yield os.stat(self._path(record.container_id, record.ifname)).st_mtime_ns / 1e9, record

    def __iter__(self) -> Iterator[Record]:
        """Every readable record; damaged ones are skipped, because they belong to other containers."""
        return (record for record in self.all() if isinstance(record, Record))

    def _files(self) -> list[str]:
        with _Disk(f"read the records in {self.directory}"), suppress(FileNotFoundError):
            return sorted(os.listdir(self.directory))
        return []

    def _path(self, container_id: str, ifname: str) -> str:
        # both were checked against the specification's alphabet; a container's ID has no '@'
        return f"{self.directory}/{container_id}@{ifname}{SUFFIX}"

    def _load(self, path: str) -> Record | None:
        data = _bytes(path)
        return None if data is None else self._parsed(path, data)

    def _parsed(self, path: str, data: bytes) -> Record:
        *lines, rest = data.split(b"\n")
        why = "it is empty"
        for line in filter(None, (*reversed(lines), rest)):  # an earlier line lacks only the results
            try:
                record = Record.of(decode(line, "record", deepest=2 * DEEPEST))  # of what it holds
            except CniError as error:
                why = str(error)
                continue
            if self._path(record.container_id, record.ifname) == path:
                return record
            why = "it is another container's"
        raise DamagedError(path, why)
