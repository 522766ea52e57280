"""A node's file system: the host's, but with private directories where CNI writes.

The root is a tmpfs. The host's top-level directories are bind-mounted into it, so all programs work. `/etc`, `/opt`,
`/run` and `/var` consist of symbolic links to the host's entries (under `/.host`), except for the node's private
directories. The host's files are read-only (except `/tmp` and the kernel's file systems), so a plugin that writes to a
wrong place fails and changes nothing. The host does not need the directories that CNI uses.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from harness.embedded import linux

HOST = "/.host"
#: A node's private directories, with their paths.
OWN = (
    "/etc/cni/net.d",
    "/etc/kubernetes",
    "/opt/cni/bin",
    "/run/genie",
    "/run/netns",
    "/var/lib/cni",
    "/var/log",
)
_REBUILT = ("/etc", "/opt", "/run", "/var", "/var/lib")
_OWN_SYS = "/sys"
_OWN_FILES = ("/etc/hostname",)
_WRITABLE = ("/dev", "/proc", "/sys", "/tmp")


def enter(root: Path, hostname: str) -> None:
    """Move this process, in a new mount namespace, into a node's root made at an empty directory.

    Raises OSError: the kernel refuses one of the mounts.
    """
    linux.unshare(linux.CLONE_NEWNS)
    linux.mount("none", "/", flags=linux.MS_REC | linux.MS_PRIVATE)
    linux.mount("node", str(root), "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=755")
    for entry in sorted(os.scandir("/"), key=lambda entry: entry.name):
        _bring(entry, root)
    (root / HOST[1:]).mkdir()
    linux.pivot_root(str(root), str(root / HOST[1:]))
    _protect(HOST)
    for directory in _REBUILT:
        _rebuild(directory)
    for directory in OWN:
        Path(directory).mkdir(parents=True, exist_ok=True)
    Path("/etc/hostname").write_text(hostname + "\n")
    if not Path("/var/run").exists():
        Path("/var/run").symlink_to("/run")


def _bring(entry: os.DirEntry[str], root: Path) -> None:
    """Bind one of the host's top-level entries, unless it consists of links."""
    there = root / entry.name
    if entry.path in _REBUILT:
        there.mkdir()
    elif entry.is_symlink():
        there.symlink_to(Path(entry.path).readlink())
    elif entry.is_dir():
        there.mkdir()
        if not (entry.path == _OWN_SYS and _mount_sysfs(there)):
            # An entry that cannot be bound (some mounts of the host) is reachable under HOST.
            with suppress(OSError):
                linux.mount(entry.path, str(there), flags=linux.MS_BIND | linux.MS_REC)
                if entry.path not in _WRITABLE:
                    _protect(str(there))


def _protect(directory: str) -> None:
    """Make a mount read-only if the kernel supports it; on older kernels, file permissions must do."""
    with suppress(OSError):
        linux.make_read_only(directory)


def _mount_sysfs(there: Path) -> bool:
    """Mount the sysfs of this network namespace; the kernel does not allow it in every container."""
    try:
        linux.mount("sysfs", str(there), "sysfs", linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC)
    except OSError:
        return False
    return True


def _rebuild(directory: str) -> None:
    """Fill a directory with links to the host's entries, except for the node's private ones."""
    Path(directory).mkdir(exist_ok=True)
    host = Path(HOST + directory)
    for name in _listed(host):
        path = f"{directory}/{name}"
        if (
            path not in _REBUILT
            and path not in _OWN_FILES
            and not _leads_to_own(path)
            and (directory != "/run" or _of_use(host / name))
        ):
            Path(path).symlink_to(_target(host / name))


def _target(entry: Path) -> Path:
    """The target of a link to a host's entry; links of the host are copied, because their targets exist on the node."""
    return entry.readlink() if entry.is_symlink() else entry


def _leads_to_own(path: str) -> bool:
    return any(own == path or own.startswith(path + "/") for own in OWN)


def _of_use(entry: Path) -> bool:
    """Link only directories of /run: a node must not reach sockets or locks of the host."""
    return entry.is_dir() and entry.name not in ("docker", "containerd", "cni", "flannel", "netns")


def _listed(directory: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in directory.iterdir())
    except OSError:
        return []


def install(directory: str, binaries: Iterable[str]) -> None:
    """Make links to plugin binaries in a node's directory; the first one of a name wins."""
    for binary in binaries:
        place = Path(directory) / Path(binary).name
        if not place.is_symlink() and not place.exists():
            place.symlink_to(HOST + binary)  # also works if the node has a private directory in its place


def write_sysctls(settings: dict[str, str], report: Callable[[str], None]) -> None:
    """Set sysctls of this network namespace; report one that this kernel lacks, and continue."""
    for name, value in settings.items():
        try:
            Path("/proc/sys", *name.split(".")).write_text(value)
        except OSError as error:
            report(f"sysctl {name}: {error.strerror}")
