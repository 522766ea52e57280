"""Downloads, each pinned by its SHA-256: out of $GENIE_MIRROR, else the cache, else the network.

`$GENIE_MIRROR` is a directory that holds `https://HOST/PATH` as `HOST/PATH`. What lies there is its owner's choice
and is used as it is, also where it differs from the pinned content (a manifest changed for an air-gapped place);
whatever comes over the network must have the pinned checksum. The cache names files by checksum, so it is never
stale.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

#: What the project pins and describes: archives, networks, definitions. Not there in an installed package.
FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"


class NotHad(Exception):
    """A download is not to be had; the message says where it was looked for."""


@dataclass(frozen=True, kw_only=True)
class Download:
    """One file, at any of several URLs."""

    urls: tuple[str, ...]
    sha256: str

    def get(self, timeout: float = 60.0) -> Path:
        """The file on this machine.

        Raises:
            NotHad: it is neither in the mirror nor in the cache, and no URL gave it.
        """
        if found := mirrored(self.urls):
            return found
        cached = cache_dir() / "sha256" / self.sha256
        if cached.is_file():
            return cached
        failures = []
        for url in self.urls:
            try:
                _keep(_fetched(url, timeout), self.sha256, cached)
                return cached
            except (OSError, ValueError) as error:
                failures.append(f"{url}: {why(error)}")
        raise NotHad("; ".join(failures))


def cache_dir() -> Path:
    """Where the harness keeps what it downloads, and its clusters' state: $XDG_CACHE_HOME/genie."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "genie"


def why(error: Exception) -> str:
    """What went wrong with a download, without urllib's own words around it; of a server's answer, with its number."""
    return str(error if isinstance(error, urllib.error.HTTPError) else getattr(error, "reason", None) or error)


def mirrored(urls: Sequence[str]) -> Path | None:
    """The file that $GENIE_MIRROR has for one of these URLs, if it has one."""
    if not (root := os.environ.get("GENIE_MIRROR")):
        return None
    places = [Path(root) / urlsplit(url).netloc / urlsplit(url).path.lstrip("/") for url in urls]
    return next((place for place in places if place.is_file()), None)


def _fetched(url: str, timeout: float) -> bytes:
    if urlsplit(url).scheme != "https":
        raise ValueError("not an https URL")
    with urllib.request.urlopen(url, timeout=timeout) as answer:
        return bytes(answer.read())


def _keep(content: bytes, sha256: str, place: Path) -> None:
    if (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise ValueError(f"its SHA-256 is {found}, expected {sha256}")
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=place.parent, delete=False) as file:
        file.write(content)
    Path(file.name).replace(place)
