"""Downloads pinned by checksum: from $GENIE_MIRROR, else the cache, else the network.

`$GENIE_MIRROR` is a directory that holds `https://HOST/PATH` as `HOST/PATH`. Its files are used unchanged, even if they
differ from the pinned content (for example a manifest for an air-gapped network). A download from the network must have
the pinned checksum. The cache names files by checksum, so it is never stale.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit


def _shipped(name: str) -> Path:
    """A folder of the project: inside the package if installed, next to it in a checkout."""
    package = Path(__file__).resolve().parent
    return package / name if (package / name).is_dir() else package.parent / name


#: Pinned archives, and descriptions of networks, definitions and plugins.
FIXTURES = _shipped("fixtures")
#: The project's own scenarios, with their schema.
SCENARIOS = _shipped("scenarios")
PAUSE = 3600.0  # seconds for which a failure is remembered


class NotHad(Exception):
    """A download is not available; the message lists the places that were tried."""


@dataclass(frozen=True, kw_only=True)
class Download:
    """One file with several URLs."""

    urls: tuple[str, ...]
    checksum: str  # "sha256:…" or "sha512:…"

    def get(self, *, remember: bool = False) -> Path:
        """The file on this machine.

        remember: remember a failure for an hour, so a machine without a network does not wait in every run.

        Raises NotHad: it is neither in the mirror nor in the cache, and no URL worked.
        """
        if found := mirrored(self.urls):
            return found
        algorithm, _, expected = self.checksum.partition(":")
        cached, failed = cache_dir() / algorithm / expected, cache_dir() / "failed" / expected[:32]
        if cached.is_file():
            return cached
        if remember and failed.is_file() and time.time() - failed.stat().st_mtime < PAUSE:
            raise NotHad(f"{failed.read_text()} (remembered for an hour in {failed})")
        failures = []
        for url in self.urls:
            try:
                _fetch(url, cached, algorithm, expected)
                return cached
            except (OSError, ValueError) as error:
                # Without urllib's words around it; for an answer of a server, with its status.
                reason = error if isinstance(error, urllib.error.HTTPError) else getattr(error, "reason", None) or error
                failures.append(f"{url}: {reason}")
        if remember:
            failed.parent.mkdir(parents=True, exist_ok=True)
            failed.write_text("; ".join(failures))
        raise NotHad("; ".join(failures))


def cache_dir() -> Path:
    """The folder for downloads and clusters' state: $XDG_CACHE_HOME/genie."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "genie"


def mirrored(urls: Sequence[str]) -> Path | None:
    """The file in $GENIE_MIRROR for one of these URLs, or None."""
    if not (root := os.environ.get("GENIE_MIRROR")):
        return None
    places = [Path(root) / urlsplit(url).netloc / urlsplit(url).path.lstrip("/") for url in urls]
    return next((place for place in places if place.is_file()), None)


def digest(path: Path, algorithm: str) -> str:
    """A file's checksum, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _fetch(url: str, place: Path, algorithm: str, expected: str) -> None:
    """Download a file atomically, with a progress bar."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    if urlsplit(url).scheme not in ("http", "https"):
        raise ValueError("not an https URL")
    columns = (TextColumn("   {task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=place.parent, delete=False) as file:
        temporary = Path(file.name)
        try:
            with (
                urllib.request.urlopen(url, timeout=20) as answer,
                Progress(*columns, console=Console(stderr=True), transient=True) as bar,
            ):
                size = int(answer.headers.get("Content-Length") or 0) or None
                task = bar.add_task(url.rpartition("/")[2], total=size)
                while chunk := answer.read(1 << 18):
                    file.write(chunk)
                    bar.update(task, advance=len(chunk))
            file.close()
            if (found := digest(temporary, algorithm)) != expected:
                raise ValueError(f"its {algorithm} is {found}, expected {expected}")
            temporary.replace(place)
        finally:
            temporary.unlink(missing_ok=True)
