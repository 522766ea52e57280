"""System calls for namespaces that Python (before 3.12) has no functions for."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
MNT_DETACH = 2
_PR_SET_PDEATHSIG = 1
_MOUNT_SETATTR, _MOUNT_ATTR_RDONLY, _AT_FDCWD, _AT_RECURSIVE = 442, 1, -100, 0x8000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_RTM_NEWLINK, _NLM_REQUEST, _NLM_ACK, _NLM_CREATE = 16, 1, 4, 0x400
_IFLA_LINKINFO, _IFLA_INFO_KIND, _IFLA_INFO_DATA, _IFLA_VXLAN_ID, _IFLA_VXLAN_PORT = 18, 1, 2, 1, 15
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "riscv64": 41, "ppc64le": 203, "s390x": 217, "armv7l": 218}

_libc = ctypes.CDLL(None, use_errno=True)


def unshare(flags: int) -> None:
    """Create new namespaces for the calling thread (CLONE_NEWNET) or process.

    Raises OSError: the kernel refuses.
    """
    _check(_libc.unshare(flags), "unshare")


def setns(fd: int, kind: int) -> None:
    """Move the calling thread into the namespace that the descriptor `fd` refers to.

    Raises OSError: the kernel refuses.
    """
    _check(_libc.setns(fd, kind), "setns")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2).

    Raises OSError: the kernel refuses; it names the target.
    """
    _check(_libc.mount(source.encode(), target.encode(), kind.encode() or None, flags, data.encode() or None), target)


def make_read_only(target: str) -> None:
    """Make a mount and all mounts below it read-only.

    Raises OSError: the kernel refuses, or is older than 5.12.
    """
    attributes = struct.pack("=QQQQ", _MOUNT_ATTR_RDONLY, 0, 0, 0)
    call = (
        ctypes.c_long(_MOUNT_SETATTR),
        _AT_FDCWD,
        target.encode(),
        _AT_RECURSIVE,
        attributes,
        ctypes.c_size_t(len(attributes)),
    )
    _check(_libc.syscall(*call), target)


def unmount(target: str) -> None:
    """Detach a mount at once, even if it is in use.

    Raises OSError: it is not a mount.
    """
    _check(_libc.umount2(target.encode(), MNT_DETACH), target)


def pivot_root(new: str, old: str) -> None:
    """Make `new` the root; the previous root is then at `old` below it.

    Raises OSError: the kernel refuses, or the call's number on this architecture is not known.
    """
    number = _PIVOT_ROOT.get(os.uname().machine)
    if number is None:
        raise OSError(f"pivot_root on {os.uname().machine} is not known to the harness")
    _check(_libc.syscall(ctypes.c_long(number), new.encode(), old.encode()), new)
    os.chdir("/")


def die_with_parent(signal: int) -> None:
    """Ask the kernel to send this process a signal when its parent ends; 0 turns this off."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal, 0, 0, 0)


def net_namespace() -> int:
    """A descriptor of the calling thread's network namespace."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


@contextmanager
def within(net: int) -> Iterator[None]:
    """Run the calling thread in another network namespace during the context; sockets made there stay there."""
    back = net_namespace()
    try:
        setns(net, CLONE_NEWNET)
        yield
    finally:
        setns(back, CLONE_NEWNET)
        os.close(back)


def new_net_namespace() -> int:
    """A descriptor of a new network namespace, with its loopback up. It exists while a descriptor is open.

    Raises OSError: the kernel refuses.
    """
    made: list[int | OSError] = []

    def make() -> None:
        try:
            unshare(CLONE_NEWNET)
            loopback_up()
            made.append(net_namespace())
        except OSError as error:
            made.append(error)

    thread = threading.Thread(target=make)  # a thread can leave its namespace; the process stays
    thread.start()
    thread.join()
    if isinstance(made[0], OSError):
        raise made[0]
    return made[0]


def loopback_up() -> None:
    """Set the loopback of this network namespace up, without netlink: too small a task for an import of pyroute2."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sh14x", b"lo", 0)
        _, flags = struct.unpack("16sh14x", fcntl.ioctl(sock, _SIOCGIFFLAGS, request))
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))


def spawn(command: Sequence[str], log: Path, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a program in the background, with its output in a log."""
    with log.open("wb") as output:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env, start_new_session=True
        )


def tail(log: Path, lines: int) -> str:
    """The last lines of a log, joined to one line."""
    text = log.read_text(errors="replace") if log.exists() else ""
    return " | ".join(text.strip().splitlines()[-lines:]) or "it logged nothing"


def search_path() -> str:
    """PATH and the directories of root's programs: iptables is there, and some users' PATH lacks them."""
    path = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return os.pathsep.join(dict.fromkeys([*path, "/usr/local/sbin", "/usr/sbin", "/sbin"]))


def is_real_root() -> bool:
    """Whether this process is in the machine's initial user namespace."""
    return Path("/proc/self/uid_map").read_text().split()[2] == "4294967295"


def has_vxlan() -> bool:
    """Whether a VXLAN device can be made, tried in a temporary network namespace. Without pyroute2, too."""
    information = _attribute(_IFLA_VXLAN_ID, struct.pack("=I", 1)) + _attribute(
        _IFLA_VXLAN_PORT, struct.pack("!H", 4789)
    )
    kind = _attribute(_IFLA_INFO_KIND, b"vxlan") + _attribute(_IFLA_INFO_DATA, information)
    body = bytes(16) + _attribute(_IFLA_LINKINFO, kind)  # a struct ifinfomsg of zeros
    request = struct.pack("=IHHII", 16 + len(body), _RTM_NEWLINK, _NLM_REQUEST | _NLM_ACK | _NLM_CREATE, 1, 0) + body
    net = new_net_namespace()
    try:
        with within(net), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
            netlink.send(request)
            return bool(struct.unpack_from("=i", netlink.recv(4096), 16)[0] == 0)
    finally:
        os.close(net)


def _attribute(kind: int, content: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(content), kind) + content + bytes(-len(content) % 4)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
