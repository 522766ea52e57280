"""A separate machine for one check: new namespaces, with a private copy of every directory.

A check runs in a new process, which is process 1 of a new pid namespace, in a new network namespace with only a
loopback and an uplink. Each of the host's top-level directories is under an overlay. So all files that a plugin writes
are in one place, where the harness sees them, and disappear when the check ends. When the process ends, all namespaces,
mounts, files and processes end with it.
"""

from __future__ import annotations

import errno
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from harness.conformance import netlink
from harness.conformance.call import Memory
from harness.conformance.kernel import Kernel, look
from harness.embedded import linux
from harness.waiting import until_nothing

T = TypeVar("T")
UPLINK = "eth0"
NETNS = Path("/run/netns")
PLACE = Path("/dev/shm")  # the harness's directory, which is ignored
_UPPER = PLACE / "upper"
_OWN = ("upper", "work", "delegate")  # the harness's in PLACE
REMOVED = b"\0removed"
_KEPT = ("proc", "sys", "dev", "run", "lost+found")
_DAEMON_SECONDS = 10.0
_SMALL = 1 << 16  # bytes of a file that are searched for words of an attachment
_NOISE = re.compile(r" ?\bcounter packets \d+ bytes \d+| ?# handle \d+|^#.*$|\[\d+:\d+\]", re.MULTILINE)


class NoMachine(Exception):
    """The host does not allow the namespaces; the message has the reason."""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The state of the machine outside the containers."""

    kernel: Kernel
    #: Written since the machine's start: path to contents. An empty directory ends with "/"; REMOVED is no content.
    files: dict[str, bytes]
    processes: dict[int, str]
    firewall: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class NodeProgram:
    """A daemon that the plugin needs on the machine."""

    command: str  # for a shell
    directory: Path  # where it is started
    ready: str = ""  # the path of what exists when it is ready

    def shell(self) -> str:
        """How to start it, as a line of shell."""
        wait = f"; until [ -e {shlex.quote(self.ready)} ]; do sleep 0.1; done" if self.ready else ""
        return f"(cd {shlex.quote(str(self.directory))} && {self.command}) &{' ' + wait[2:] if wait else ''}"


class Sandbox:
    """A container: a network namespace with a name, as `ip netns add` makes it."""

    names: ClassVar[set[str]] = set()

    def __init__(self, name: str) -> None:
        self.name, self.path = name, NETNS / name
        self.names.add(name)
        self._net = linux.new_net_namespace()
        self.path.touch()
        linux.mount(f"/proc/self/fd/{self._net}", str(self.path), flags=linux.MS_BIND)

    def inside(self, what: Callable[..., T], *args: Any, **more: Any) -> T:
        """Call a function in the namespace, which may have lost its name."""
        with linux.within(self._net):
            return what(*args, **more)

    def look(self) -> Kernel:
        """The kernel's state of it."""
        return self.inside(look)

    @property
    def is_named(self) -> bool:
        """Whether its name still leads to it."""
        with suppress(OSError):
            there, own = self.path.stat(), os.fstat(self._net)
            return (there.st_dev, there.st_ino) == (own.st_dev, own.st_ino)
        return False

    def close(self) -> None:
        """Remove it with everything in it, as a reboot does."""
        with suppress(OSError):
            linux.unmount(str(self.path))
        self.path.unlink(missing_ok=True)
        os.close(self._net)


def begin(masters: Sequence[str], needed: Sequence[Path]) -> None:
    """Make this process (a new fork) the first one of a new machine. Returns in a child of it.

    masters: interfaces that the configuration needs on the host; each becomes an interface that is up.
    needed: directories that must be watched, even if they are on separate mounts.

    Raises NoMachine: the kernel refuses.
    """
    linux.die_with_parent(signal.SIGKILL)
    uid, gid = os.geteuid(), os.getegid()
    namespaces = linux.CLONE_NEWNS | linux.CLONE_NEWNET | linux.CLONE_NEWPID
    try:
        linux.unshare(namespaces | (linux.CLONE_NEWUSER if uid else 0))
        if uid:
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
            Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    except OSError as error:
        raise NoMachine(f"no namespaces of its own for a check ({error.strerror}): run as root") from error
    if child := os.fork():
        _, status = os.waitpid(child, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    linux.die_with_parent(signal.SIGKILL)
    try:
        _mount(needed)
        _links([UPLINK, *masters])
    except OSError as error:
        raise NoMachine(f"cannot set up a machine for a check: {error}") from error


def _mount(needed: Sequence[Path]) -> None:
    linux.mount("none", "/", flags=linux.MS_REC | linux.MS_PRIVATE)
    flags = linux.MS_NOSUID | linux.MS_NODEV
    linux.mount("proc", "/proc", "proc", flags | linux.MS_NOEXEC)
    with suppress(OSError):  # unprivileged containers may lack it
        linux.mount("sysfs", "/sys", "sysfs", flags | linux.MS_NOEXEC)
    held = {path: os.open(path, os.O_PATH | os.O_CLOEXEC) for path in needed if path.is_dir()}
    linux.mount("machine", str(PLACE), "tmpfs", flags, "mode=755")
    for path in sorted(Path("/").iterdir()):
        if path.name not in _KEPT and path.is_dir() and not path.is_symlink():
            _overlay(path)
    linux.mount("run", "/run", "tmpfs", flags, "mode=755")
    NETNS.mkdir()
    for path, fd in held.items():
        if not path.is_dir() or not any(path.iterdir()):
            path.mkdir(parents=True, exist_ok=True)
            linux.mount(f"/proc/self/fd/{fd}", str(path), flags=linux.MS_BIND)


def _overlay(path: Path) -> None:
    upper, work = _UPPER / path.name, PLACE / "work" / path.name
    upper.mkdir(parents=True)
    work.mkdir(parents=True)
    with suppress(OSError):  # a file system that cannot be under an overlay is used directly and not watched
        linux.mount("overlay", str(path), "overlay", 0, f"lowerdir={path},upperdir={upper},workdir={work}")


def _links(names: Sequence[str]) -> None:
    """Interfaces that are up: each is one end of a veth pair, with the other end in a separate namespace."""
    linux.loopback_up()
    outside = linux.new_net_namespace()  # open for the lifetime of the process
    for number, name in enumerate(dict.fromkeys(names)):
        netlink.pair(name, f"far{number}", outside)
        netlink.up(name)
        with linux.within(outside):
            netlink.up(f"far{number}")
        if number == 0:
            netlink.uplink(name, "192.0.2.10/24", "192.0.2.1")


def snapshot() -> Snapshot:
    return Snapshot(kernel=look(), files=dict(_files()), processes=_processes(), firewall=_firewall())


def _files() -> Iterator[tuple[str, bytes]]:
    for root, shown in ((_UPPER, ""), (Path("/run"), "/run"), (PLACE, str(PLACE))):
        for folder, folders, names in os.walk(root):
            there = shown + folder[len(str(root)) :]
            if Path(folder) == NETNS:
                folders.clear()
                yield from ((f"{there}/{name}", b"") for name in names if name not in Sandbox.names)
                continue
            if there == "/run/mount":  # the notes of the commands mount and umount
                folders.clear()
                continue
            if root == PLACE == Path(folder):
                folders[:] = [name for name in folders if not name.startswith(_OWN)]
            if not names and not folders and folder != str(root):
                yield f"{there}/", b""
            yield from ((f"{there}/{name}", _content(Path(folder, name))) for name in names)


def _content(path: Path) -> bytes:
    try:
        if path.is_symlink():
            return bytes(path.readlink())
        if not path.is_file():  # a file of the host that was removed is a character device in the overlay
            return REMOVED if path.is_char_device() and path.stat().st_rdev == 0 else b""
        with path.open("rb") as file:
            return file.read(_SMALL)
    except OSError:
        return b""


def has_kind(kind: str) -> bool:
    """Whether the kernel can make interfaces of a kind; True if it knows no such kind by that name, or is not sure."""
    try:
        with IPRoute() as route:
            [parent] = route.link_lookup(ifname=UPLINK)
            route.link("add", ifname="kind0", kind=kind, link=parent)
            route.link("del", ifname="kind0")
    except NetlinkError as error:
        return bool(error.code != errno.EOPNOTSUPP)
    return True


def settings() -> dict[str, str]:
    """The sysctls of the calling thread's network namespace, without those that change by themselves."""
    found = {}
    for folder, _, names in os.walk("/proc/sys/net"):
        for name in names:
            with suppress(OSError, UnicodeDecodeError):
                found[f"{folder[len('/proc/sys/') :]}/{name}"] = Path(folder, name).read_text()
    return {name: value for name, value in found.items() if not name.endswith("/nf_conntrack_count")}


def provide(path: str, text: str) -> None:
    """Write a file that a daemon has written on a node, unless it is there."""
    file = Path(path)
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")


def start(daemon: NodeProgram) -> None:
    """Start a daemon, and wait until it is ready.

    Raises NoMachine: it has ended, or is not ready in time.
    """
    with Memory.of() as log:
        process = subprocess.Popen(
            ["sh", "-c", daemon.command], cwd=daemon.directory, env={"PATH": linux.search_path()},
            stdin=subprocess.DEVNULL, stdout=log.fd, stderr=log.fd,
        )  # fmt: skip
        missing = until_nothing(
            lambda: bool(daemon.ready) and not Path(daemon.ready).exists(),
            _DAEMON_SECONDS,
            hopeless=lambda _: process.poll() is not None,
        )
        status = process.poll()
        if missing or status:
            why = f"has not made {daemon.ready}" if status is None else f"ended with status {status}"
            words = log.content()[:300].decode(errors="replace").strip()
            raise NoMachine(
                f"conformance.daemons in the profile: {daemon.command} {why}{f': {words}' if words else ''}"
            )


def remove(paths: Sequence[str]) -> None:
    """Remove files, to tamper with a plugin's store."""
    for path in paths:
        Path(path).unlink(missing_ok=True)


def _processes() -> dict[int, str]:
    """Running processes, except this one and zombies."""
    found = {}
    for place in Path("/proc").iterdir():
        if place.name.isdecimal() and int(place.name) != os.getpid():
            with suppress(OSError):
                state = (place / "stat").read_text().rpartition(") ")[2]
                command = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if not state.startswith(("Z", "X")):
                    found[int(place.name)] = command.strip() or place.name
    return found


def _firewall() -> frozenset[str]:
    """All rules, each with its table and chain, without counters."""
    lines: set[str] = set()
    if nft := shutil.which("nft", path=linux.search_path()):
        table = chain = ""
        for line in _printed([nft, "list", "ruleset"]):
            text = line.strip()
            if text.startswith("table "):
                table, chain = text.removesuffix("{").strip(), ""
                lines.add(table)
            elif text.startswith(("chain ", "set ", "map ")):
                chain = text.removesuffix("{").strip()
                lines.add(f"{table} {chain}")
            elif text not in ("", "}"):
                lines.add(f"{table} {chain}: {text}")
    for program in ("iptables-legacy-save", "ip6tables-legacy-save"):
        # The command loads unused kernel modules, so it runs only if a table exists already.
        tables = Path("/proc/net", "ip6_tables_names" if program.startswith("ip6") else "ip_tables_names")
        if (found := shutil.which(program, path=linux.search_path())) and tables.exists() and tables.read_text():
            lines.update(f"{program}: {line.strip()}" for line in _printed([found]) if line.strip())
    return frozenset(lines)


def _printed(command: Sequence[str]) -> list[str]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    return _NOISE.sub("", done.stdout).splitlines()
