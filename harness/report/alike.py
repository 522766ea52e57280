"""Texts that are equal apart from the parts that differ between runs."""

from __future__ import annotations

import re

# Addresses, versions, identifiers, numbers.
_VARIES = re.compile(
    r"/\S*/(?=\w)|(?:[0-9a-f]{2}:){5}[0-9a-f]{2}|\b(?=\w*\d)(?:veth|cnitest|[0-9a-f]{6,})[\w-]*|[0-9]+(?:[.:/][0-9]+)*"
)


def alike(text: str) -> str:
    """A text without the parts that differ between runs."""
    return _VARIES.sub("#", text)
