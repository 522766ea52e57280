"""Archives that are pinned in fixtures/pins.yaml: out of $GENIE_MIRROR, else the cache, else the network; kept
unpacked.

As with all downloads of the harness, what the mirror holds is its owner's choice, and what the network gives must
have the pinned checksum. An archive that could not be had is not asked for again for a while, so that a machine
without network does not wait for it in every run.
"""

from __future__ import annotations

import hashlib
import platform
import shutil
import tarfile
import tempfile
import time
import urllib.request
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import yaml
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from harness.download import FIXTURES, NotHad, cache_dir, mirrored, why

_PAUSE = 3600.0  # seconds for which a failure is remembered
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, kw_only=True)
class Pin:
    """One entry of fixtures/pins.yaml, for this machine."""

    name: str
    version: str
    url: str
    checksum: str  # "sha256:…"; empty: not pinned for this architecture
    more: dict[str, str]


def pin(name: str) -> Pin:
    """What is pinned under a name."""
    data: dict[str, Any] = yaml.safe_load((FIXTURES / "pins.yaml").read_text())[name]
    arch = _ARCHITECTURES.get(platform.machine(), platform.machine())
    known = ("version", "url", "checksums")
    return Pin(
        name=name,
        version=data["version"],
        url=data["url"].format(arch=arch),
        checksum=data["checksums"].get(arch, ""),
        more={key: value for key, value in data.items() if key not in known},
    )


def programs(pinned: Pin, progress: Progress | None = None) -> Path:
    """A directory with the executables of a pinned archive.

    Raises:
        NotHad: it cannot be had; the message says where it was looked for.
    """
    ours = mirrored([pinned.url])
    if ours is None and not pinned.checksum:
        raise NotHad(f"{pinned.url}: nothing is pinned for this architecture ({platform.machine()})")
    key = _digest(ours, "sha256") if ours else pinned.checksum.partition(":")[2]
    place = cache_dir() / "programs" / f"{pinned.name}-{pinned.version}-{key[:16]}"
    if not place.is_dir():
        archive = ours or _fetched(pinned, progress)
        try:
            _unpack(archive, place)
        except (tarfile.TarError, EOFError, zlib.error) as error:
            raise NotHad(f"{archive}: cannot be unpacked: {error}") from error
    return place


def bars() -> Progress:
    """How downloads are shown."""
    from rich.console import Console

    columns = (TextColumn("   {task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)


def _fetched(pinned: Pin, progress: Progress | None) -> Path:
    algorithm, _, digest = pinned.checksum.partition(":")
    place = cache_dir() / algorithm / digest
    if place.is_file():
        return place
    failure = cache_dir() / "failed" / digest[:32]
    if failure.is_file() and time.time() - failure.stat().st_mtime < _PAUSE:
        raise NotHad(f"{pinned.url}: {failure.read_text()} (remembered for an hour in {failure})")
    try:
        _download(pinned.url, place, algorithm, digest, progress or bars())
    except OSError as error:
        failure.parent.mkdir(parents=True, exist_ok=True)
        failure.write_text(why(error))
        raise NotHad(f"{pinned.url}: {failure.read_text()}") from error
    return place


def _download(url: str, place: Path, algorithm: str, digest: str, progress: Progress) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=place.parent, delete=False) as file:
        try:
            with urllib.request.urlopen(url, timeout=10) as answer, progress:
                task = progress.add_task(
                    url.rpartition("/")[2], total=int(answer.headers.get("Content-Length") or 0) or None
                )
                while chunk := answer.read(1 << 18):
                    file.write(chunk)
                    progress.update(task, advance=len(chunk))
            file.close()
            if (found := _digest(Path(file.name), algorithm)) != digest:
                raise OSError(f"its {algorithm} is {found}, expected {digest}")
            Path(file.name).replace(place)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _unpack(archive: Path, place: Path) -> None:
    """The archive's executables, flat, in a directory that appears when it is complete."""
    with made_whole(place) as directory, tarfile.open(archive, "r:gz") as files:
        for member in files:
            content: BinaryIO | Any = files.extractfile(member) if member.isfile() and member.mode & 0o111 else None
            if content:
                target = directory / Path(member.name).name
                with target.open("wb") as file:
                    shutil.copyfileobj(content, file)
                target.chmod(0o755)


@contextmanager
def made_whole(place: Path) -> Iterator[Path]:
    """A directory that takes its name only when what fills it has succeeded; another run may have been first."""
    place.parent.mkdir(parents=True, exist_ok=True)
    at = Path(tempfile.mkdtemp(dir=place.parent, prefix=".new-"))
    at.chmod(0o755)
    try:
        yield at
        with suppress(OSError):
            at.rename(place)
        if not place.is_dir():
            raise OSError(f"cannot make {place}")
    finally:
        shutil.rmtree(at, ignore_errors=True)
