"""Archives that are pinned in fixtures/pins.yaml, downloaded and kept unpacked."""

from __future__ import annotations

import platform
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from harness.download import FIXTURES, Download, NotHad, cache_dir, digest, mirrored

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, kw_only=True)
class Pin:
    """One entry of fixtures/pins.yaml, for this machine."""

    name: str
    version: str
    url: str
    checksum: str  # "sha256:…", "sha512:…"; empty: not pinned for this architecture
    more: dict[str, str]


def pin(name: str) -> Pin:
    """The entry of a name."""
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


def programs(pinned: Pin) -> Path:
    """A directory with the executables of a pinned archive.

    Raises NotHad: it is not available; the message lists the places that were tried.
    """
    ours = mirrored([pinned.url])
    if ours is None and not pinned.checksum:
        raise NotHad(f"{pinned.url}: nothing is pinned for this architecture ({platform.machine()})")
    key = digest(ours, "sha256") if ours else pinned.checksum.partition(":")[2]
    place = cache_dir() / "programs" / f"{pinned.name}-{pinned.version}-{key[:16]}"
    if not place.is_dir():
        archive = Download(urls=(pinned.url,), checksum=pinned.checksum).get(remember=True)
        try:
            _unpack(archive, place)
        except (tarfile.TarError, EOFError, zlib.error) as error:
            raise NotHad(f"{archive}: cannot be unpacked: {error}") from error
    return place


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
    """A directory that gets its final name only after it was filled successfully; another run may do so first."""
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
