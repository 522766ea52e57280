"""Errors as the CNI specification defines them.

Every failure inside `genie.cni` is a `CniError`. It has the specification's numeric code, so that a plugin's own code
reaches the runtime unchanged. It can print itself as the "error" object that a runtime reads on standard output.
`CniError.parse` reads that object from a plugin's output.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any


class Code:
    """Error codes (specification, section 5, "Error"); 0 to 99 are the specification's, from 100 on the plugin's."""

    INCOMPATIBLE_VERSION = 1
    UNSUPPORTED_FIELD = 2
    UNKNOWN_CONTAINER = 3
    INVALID_ENVIRONMENT = 4
    IO_FAILURE = 5
    DECODING_FAILURE = 6
    INVALID_CONFIG = 7
    INVALID_NETNS = 8  # containernetworking's, not the specification's
    TRY_AGAIN = 11
    NOT_AVAILABLE = 50
    LIMITED_CONNECTIVITY = 51
    # Not in the specification: libcni uses it for everything else, and runtimes know it.
    INTERNAL = 999


class CniError(Exception):
    """A failure that can be reported to a runtime.

    code: one of `Code`, or a plugin's own from 100 on. msg: one short sentence. details: of any length.
    """

    def __init__(self, code: int, msg: str, details: str = "") -> None:
        super().__init__(code, msg, details)
        self.code = code
        self.msg = msg
        self.details = details

    def __str__(self) -> str:
        return f"{self.msg}; {self.details}" if self.details else self.msg

    def to_json(self, cni_version: str) -> dict[str, Any]:
        """The object to print on standard output (section 5, "Error"), in the caller's version."""
        shown: dict[str, Any] = {"cniVersion": cni_version, "code": self.code, "msg": self.msg}
        if self.details:
            shown["details"] = self.details
        return shown

    def adding(self, more: str) -> CniError:
        """The same error with more details; its code and message alone are kept of a subclass."""
        return CniError(self.code, self.msg, "; ".join(filter(None, (self.details, more))))

    @classmethod
    def parse(cls, stdout: bytes | str) -> CniError | None:
        """The error that a plugin printed, or None if its output is not an error object.

        Lenient, because a failing plugin's output is the only information: a missing or unusable code becomes 999,
        details of another type are shown as JSON. An object without a usable code or message is not an error.
        """
        try:
            data = json.loads(stdout)
        except (ValueError, RecursionError):
            return None
        if not isinstance(data, dict) or not ({"code", "msg"} & data.keys()):
            return None
        code, msg, details = data.get("code"), data.get("msg"), data.get("details")
        if not isinstance(code, int) or isinstance(code, bool) or not 0 < code < 1 << 32:
            code = Code.INTERNAL
        if not isinstance(msg, str):
            msg = "" if msg is None else json.dumps(msg)
        if not isinstance(details, str):
            details = "" if details is None else json.dumps(details)
        return cls(code, msg or f"error code {code} without a message", details)


def joined(errors: Sequence[CniError]) -> CniError:
    """Combine several errors into one: the first, with the others in its details."""
    first, *others = errors
    return first.adding("; ".join(map(str, others)))
