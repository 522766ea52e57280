"""Finds the programs of the embedded cluster: the plugins, and kube-apiserver with etcd. Runs on the host, before
isolation.

It searches places in a fixed order: first those that the user named, last those that must be downloaded or built. The
first place with all programs wins. If none has all, one message lists the places that were tried.
"""

from __future__ import annotations

import mmap
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.download import NotHad, cache_dir
from harness.embedded import apiserver, archives
from harness.waiting import limit

INSTALLED = (Path("/opt/cni/bin"), Path("/usr/lib/cni"), Path("/usr/libexec/cni"))
PLACES = (Path("/opt/bin"), *INSTALLED)  # searched in addition to $GENIE_CNI_BIN and PATH; nothing is downloaded
_GO_FOLDERS = {"ipam": ("dhcp", "host-local", "static"), "meta": ("bandwidth", "firewall", "portmap", "sbr", "tuning")}
_VERSION = re.compile(r"\bv?\d+\.\d+(\.\d+)?(-[\w.]+)?")
_GO_MODULE = re.compile(rb"\nmod\t[^\t\n]+\t(v[^\t\n]+)")


class NotFound(Exception):
    """Programs were not found; the message lists the places that were tried."""


@dataclass(frozen=True, kw_only=True)
class Plugins:
    paths: tuple[str, ...]
    source: str  # for reports: "containernetworking/plugins v1.9.1, installed in /opt/cni/bin"
    lacking: frozenset[str] = frozenset()  # wanted names that were not found


def plugins(given: Sequence[Path], wanted: Iterable[str], needed: Iterable[str]) -> Plugins:
    """Binaries for all wanted plugins that can be found.

    given: directories that come before all others.
    wanted: names, among them vendors' own.
    needed: plugins of containernetworking/plugins that every cluster needs.

    Raises NotFound: one of `needed` was not found.
    """
    found: dict[str, Path] = {}
    missing = set(wanted) | set(needed)
    sources: list[str] = []
    tried: list[str] = []
    for directory in given:
        _take(directory, found)
    for directory, what in _places(given, tried, missing):
        new = _take(directory, found)
        if new & missing:
            sources.append(f"{_release(directory)}{what}")
        missing -= set(found)
        if not missing:
            break
        tried.append(f"{what}: lacks {', '.join(sorted(missing))}")
    if lacking := missing & set(needed):
        advice = "name a directory that has them in $GENIE_CNI_BIN, or let the harness download them"
        raise NotFound(
            f"no CNI plugins for the embedded cluster: {', '.join(sorted(lacking))}; tried:\n"
            + "".join(f"  - {line}\n" for line in tried)
            + f"  {advice}"
        )
    return Plugins(
        paths=tuple(map(str, found.values())), source=sources[0] if sources else "", lacking=frozenset(missing)
    )


def _take(directory: Path, found: dict[str, Path]) -> set[str]:
    """Add a directory's executables that were not found yet; returns all names in the directory."""
    names = set()
    for path in sorted(directory.iterdir()) if directory.is_dir() else []:
        if path.is_file() and os.access(path, os.X_OK):
            names.add(path.name)
            found.setdefault(path.name, path.resolve())
    return names


def look(names: Iterable[str], directories: Iterable[Path]) -> dict[str, Path]:
    """Each program from the first directory that has it; downloads nothing."""
    places = list(directories)
    found = {name: shutil.which(name, path=os.pathsep.join(map(str, places))) for name in names}
    return {name: Path(path).resolve() for name, path in found.items() if path}


def given() -> list[Path]:
    """The directories of plugin binaries that $GENIE_CNI_BIN names.

    Raises NotFound: one of them is not there; without it, a run would be of other plugins.
    """
    named = [Path(part) for part in os.environ.get("GENIE_CNI_BIN", "").split(os.pathsep) if part]
    for directory in named:
        if not directory.is_dir():
            raise NotFound(f"$GENIE_CNI_BIN: {directory}: no such directory")
    return named


def on_path() -> list[Path]:
    """PATH's directories."""
    return [Path(part) for part in os.environ.get("PATH", os.defpath).split(os.pathsep) if part]


def version(program: Path) -> str:
    """A program's version: its output for --version, else the module version that Go wrote into it."""
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=limit(10), check=False)
        if found := _VERSION.search(done.stdout + done.stderr):
            return found[0]
    except (OSError, subprocess.SubprocessError):
        pass
    with program.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        written = _GO_MODULE.search(content)
        return written[1].decode() if written else "of unknown version"


def _places(given: Sequence[Path], tried: list[str], missing: set[str]) -> Iterator[tuple[Path, str]]:
    """Directories in search order; slow steps (download, build) happen only when the iteration reaches them."""
    for directory in given:
        yield directory, f"given: {directory}"
    for directory in INSTALLED:
        yield directory, f"installed in {directory}"
    pinned = archives.pin("cni-plugins")
    costly: list[tuple[str, Callable[[], Path]]] = [
        (f"release archive {pinned.version}", lambda: archives.programs(pinned)),
        (f"Debian's {pinned.more['debian']}, unpacked", lambda: debian(pinned.more["debian"])),
        (f"built by go install, {pinned.version}", lambda: built(pinned.more["go"], pinned.version, missing)),
    ]
    for what, get in costly:
        try:
            directory = get()
            package = next((path.stem for path in directory.parents[2].glob("*.deb")), "")
            yield directory, f"{what} ({package})" if package else what
        except (NotHad, OSError, subprocess.SubprocessError) as error:
            tried.append(f"{what}: {_reason(error)}")


def _reason(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        lines = (error.stderr or "").strip().splitlines()
        return f"{error.cmd[0]} failed: {lines[-1] if lines else error.returncode}"
    return str(error)


def _release(directory: Path) -> str:
    """The version that the plugins in a directory print: "CNI bridge plugin v1.9.1"."""
    try:
        done = subprocess.run(
            [directory / "bridge"], capture_output=True, text=True, timeout=limit(5), env={}, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    first, _, version = (done.stderr or done.stdout).partition("\n")[0].rpartition("plugin ")
    known = version.removeprefix("version ").replace("unknown", "").strip()
    return f"containernetworking/plugins{known and ' ' + known}, " if first.startswith("CNI ") else ""


def debian(package: str) -> Path:
    """The directory of Debian's package, downloaded and unpacked; nothing is installed.

    Raises NotHad: there is no apt-get.
    """
    place = cache_dir() / "programs" / f"debian-{package}"
    if not place.is_dir():
        if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
            raise NotHad("no apt-get here")
        with archives.made_whole(place) as directory:
            _run(["apt-get", "download", package], directory)
            _run(["dpkg-deb", "-x", str(next(directory.glob("*.deb"))), "."], directory)
    return next(place.rglob("host-local")).parent


def built(module: str, release: str, names: set[str]) -> Path:
    """The directory of plugins built from source.

    Raises NotHad: there is no Go.
    """
    if not shutil.which("go"):
        raise NotHad("no go here")
    place = cache_dir() / "programs" / f"go-{release}"
    missing = [name for name in sorted(names) if not (place / name).exists()]
    place.mkdir(parents=True, exist_ok=True)
    folders = {name: folder for folder, names in _GO_FOLDERS.items() for name in names}
    packages = [f"{module}/{folders.get(name, 'main')}/{name}@{release}" for name in missing]
    if packages:
        _run(["go", "install", *packages], place, GOBIN=str(place), CGO_ENABLED="0", GOFLAGS="-mod=mod")
    return place


def _run(command: list[str], directory: Path, **env: str) -> None:
    subprocess.run(
        command,
        cwd=directory,
        env={**os.environ, **env},
        check=True,
        capture_output=True,
        text=True,
        timeout=limit(900),
    )


def api_server(choice: str) -> tuple[apiserver.Binaries, str]:
    """The API server, and the reason for the choice.

    choice: "kmock", "kube-apiserver", or empty for the real one if it can be found.

    Raises NotFound: the real one was requested and was not found.
    """
    if choice == "kmock":
        return apiserver.Binaries(), "asked for"
    tried = []
    assets = os.environ.get("KUBEBUILDER_ASSETS", "")
    for place, name in (
        (assets, "$KUBEBUILDER_ASSETS"),
        ("", "PATH"),
        ("/usr/local/kubebuilder/bin", "/usr/local/kubebuilder/bin"),
    ):
        if name.startswith("$") and not place:
            tried.append(f"{name}: not set")
        elif found := apiserver.found_in(place):
            return found, f"found in {name}"
        else:
            tried.append(f"{name}: not both of kube-apiserver and etcd")
    try:
        pinned = archives.pin("envtest")
        if found := apiserver.found_in(str(archives.programs(pinned))):
            return found, f"envtest's archive {pinned.version}"
        tried.append(f"envtest's archive {pinned.version}: lacks them")
    except NotHad as error:
        tried.append(f"envtest's archive: {error}")
    if choice:
        raise NotFound("no kube-apiserver with etcd; tried:\n" + "".join(f"  - {line}\n" for line in tried))
    return apiserver.Binaries(), f"no kube-apiserver with etcd ({'; '.join(tried)})"
