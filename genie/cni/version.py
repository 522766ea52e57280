"""The versions of the CNI specification, and what each of them can do.

Versions are plain strings everywhere ("1.0.0"), because configurations, results and plugins exchange strings,
and plugins compare strings. Only this module compares versions by order.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import lru_cache

from genie.cni.errors import CniError, Code

SUPPORTED = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
"""Released versions of the specification, oldest first."""

LATEST = SUPPORTED[-1]

UNDECLARED = "0.1.0"
"""The version of an object without `cniVersion`: the field came with 0.1.0, which does not require it."""

CHAINED = "0.3.0"
"""The first version with lists of plugins, and with interfaces and any number of addresses in a result."""


SINCE = {"CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}
"""The version in which a verb was added; the other verbs are in all versions."""


@lru_cache(maxsize=64)
def numbers(version: str) -> tuple[int, int, int]:
    """(major, minor, micro). Raises CniError (DECODING_FAILURE) if it is not like 1.0.0."""
    parts = version.split(".")
    if len(parts) > 3 or not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        raise CniError(Code.DECODING_FAILURE, f"{version!r} is not a version like 1.0.0")
    major, minor, micro = [*map(int, parts), 0, 0][:3]
    return major, minor, micro


def at_least(version: str, floor: str) -> bool:
    """Whether `version` is `floor` or newer."""
    return numbers(version) >= numbers(floor)


def has(verb: str, version: str) -> bool:
    """Whether a version of the specification has a verb."""
    return at_least(version, SINCE.get(verb, SUPPORTED[0]))


def highest(offered: Iterable[str]) -> str | None:
    """The highest of the offered versions that this package speaks, or None.

    Section 1, "Version considerations": take the highest supported version. Unknown versions, and strings that are
    not versions, are skipped.
    """
    known = set(offered)
    return next((version for version in reversed(SUPPORTED) if version in known), None)


def of_version_reply(stdout: bytes) -> tuple[str, ...]:
    """The versions in a plugin's answer to VERSION (section 5, "VERSION Success"); empty if the answer is unusable.

    A plugin of 0.2.0, which introduced the command, may leave `supportedVersions` out.
    """
    try:
        data = json.loads(stdout)
    except (ValueError, RecursionError):
        return ()
    if not isinstance(data, dict):
        return ()
    versions = data.get("supportedVersions")
    if not versions and data.get("cniVersion") == "0.2.0":
        return ("0.1.0", "0.2.0")
    if not isinstance(versions, list):
        return ()
    return tuple(version for version in versions if isinstance(version, str))
