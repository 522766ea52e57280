"""Reads JSON strictly: decodes text, and checks the type of each field of an object.

All JSON is read here: configurations, results, genie.conf, annotations, records, kubeconfigs. An error is one
sentence, `where: field: expected X, found Y`. `null` counts as absent, as in Go's decoder and so in libcni.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from genie.cni.errors import CniError, Code

_HEX = frozenset("0123456789abcdefABCDEF")

DEEPEST = 100
"""The limit for nested lists and objects. genie writes them into other JSON, and Python's own limit is near 1,000."""
compact = json.JSONEncoder(separators=(",", ":")).encode
"""Writes JSON in the shortest form."""
Refusal = Callable[[str, str], CniError]
"""Makes an error from a place (a file, an annotation) and a message."""


def invalid(where: str, message: str) -> CniError:
    """Code 7, for text that a person wrote."""
    return CniError(Code.INVALID_CONFIG, f"{where}: {message}")


def undecodable(where: str, message: str) -> CniError:
    """Code 6, for text that a program wrote."""
    return CniError(Code.DECODING_FAILURE, f"{where}: {message}")


def decode(text: bytes | str, where: str, error: Refusal = undecodable, *, deepest: int = DEEPEST) -> Any:
    """Decode JSON. Python's parser accepts NaN and Infinity, and makes Infinity of 1e999; they are refused here, as by
    other parsers.

    deepest: how many levels of lists and objects there may be.

    Raises CniError: made by `error`; the message has the reason, and the position as character, line and column.
    """
    try:
        value = json.loads(text, parse_constant=_no_constant, parse_float=_finite)
    except RecursionError as failure:
        raise error(where, f"nested too deeply: more than {deepest} levels") from failure
    except json.JSONDecodeError as failure:
        found = failure.doc[failure.pos :].strip().partition("\n")[0]
        if failure.doc.strip():
            what = f"{failure.msg}, found {shown(found[:20])}" if found else f"{failure.msg}, but the text ends here"
        else:
            what = "it is empty"
        raise error(where, f"not valid JSON {_position(failure.doc, failure.pos)}: {what}") from failure
    except UnicodeDecodeError as failure:
        before = failure.object[: failure.start].decode(failure.encoding, "replace")
        raise error(where, f"not valid JSON {_position(before, len(before))}: {failure}") from failure
    except ValueError as failure:
        at = _strange(text)
        raise error(where, f"not valid JSON{at and f' {at}'}: {failure}") from failure
    if _is_deeper(text, deepest):
        raise error(where, f"nested too deeply: more than {deepest} levels")
    return value


def _is_deeper(text: bytes | str, most: int) -> bool:
    """Whether valid JSON has more levels. By its text, because that takes a tenth of the time for long lists."""
    if isinstance(text, bytes):
        if text.count(b"[") + text.count(b"{") <= most:
            return False
        text = text.decode(json.detect_encoding(text), "replace")
    if text.count("[") + text.count("{") <= most:
        return False
    import re

    left = re.sub(r'"(?:[^"\\]|\\.)*"|[^][{}"]+', "", text)
    for _ in range(most):
        left = left.replace("[]", "").replace("{}", "")
    return bool(left)


def _position(text: str, at: int) -> str:
    """The position of a character, for people. All numbers count from 1."""
    line_start = text.rfind("\n", 0, at) + 1
    line = text.count("\n", 0, at) + 1
    return f"at character {at + 1} (line {line}, column {at - line_start + 1})"


def _strange(text: bytes | str) -> str:
    """The position of the first constant or long number; Python's parser reports these errors without a position."""
    import re

    if isinstance(text, bytes):
        text = text.decode(json.detect_encoding(text), "replace")
    for token in re.finditer(r'"(?:\\.|[^"\\])*"|NaN|-?Infinity|\d{4300,}|-?\d+(?:\.\d+)?[eE]\+?\d+', text):
        if token[0][0] != '"' and ("e" not in token[0].lower() or _is_infinite(float(token[0]))):
            return _position(text, token.start())
    return ""


def _is_infinite(number: float) -> bool:
    return abs(number) == float("inf")  # `math` takes a while to import


def _finite(number: str) -> float:
    if _is_infinite(value := float(number)):
        raise ValueError(f"{number:.20} is larger than any number")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


class Fields:
    """One JSON object. A method returns a field, or a default if the object does not have it.

    where: the object's name in messages. error: makes the errors. strict: an absent field is an error, too.
    """

    __slots__ = ("_error", "_strict", "data", "where")

    def __init__(self, data: Any, where: str, error: Refusal = invalid, *, strict: bool = False) -> None:
        if not isinstance(data, dict):
            raise error(where, f"expected an object, found {shown(data)}")
        self.data: dict[str, Any] = data
        self.where, self._error, self._strict = where, error, strict

    def wrong(self, key: str, expected: str) -> CniError:
        """The error for a field that has another value than expected."""
        return self._error(self.where, f"{key}: expected {expected}, found {shown(self.data.get(key))}")

    def only(self, known: Mapping[str, str]) -> None:
        """Refuse any other key, except keys with a period in them, which are private (reverse domain names).

        known: each accepted or likely key, with the right key for it: itself, or the one to suggest instead.
        """
        for key, value in self.data.items():
            if value is None or "." in key or known.get(key) == key:
                continue
            meant = _meant(key, known)
            keys = ", ".join(each for each, right in known.items() if each == right)
            hint = f"did you mean {meant}?" if meant else f"expected {keys}, or a key of your own with a period in it"
            raise self._error(self.where, f"{shown(key)}: no such key: {hint}")

    def string(self, key: str, default: str = "") -> str:
        value: str | None = self._get(key, str, "a string")
        return default if value is None else value

    def text(self, key: str, default: str = "", *, required: bool = False) -> str:
        """A string that a path or an HTTP header can hold. required: an empty string is an error."""
        value = self.string(key, default)
        if required and not value:
            raise self.wrong(key, "a string")
        if any(character == "\0" or "\ud800" <= character <= "\udfff" for character in value):
            raise self.wrong(key, "a string of printable characters")
        return value

    def word(self, key: str) -> str:
        """A string without the blanks around it."""
        return self.string(key).strip()

    def boolean(self, key: str) -> bool:
        return bool(self._get(key, bool, "true or false"))

    def number(
        self, key: str, expected: str = "a whole number from 0", *, least: int = 0, most: int | None = None
    ) -> int | None:
        value: int | None = self._get(key, int, expected)
        if value is not None and (value < least or (most is not None and value > most)):
            raise self.wrong(key, expected)
        return value

    def count(self, key: str) -> int | None:
        """A number of 32 bits; None for one below 0, which some programs write for "none"."""
        value: int | None = self._get(key, int, "a whole number of 32 bits")
        if value is not None and abs(value) >> 32:
            raise self.wrong(key, "a whole number of 32 bits")
        return None if value is None or value < 0 else value

    def seconds(self, key: str, default: float) -> float:
        """A number of seconds above 0 and below a day."""
        value = self._get(key, int | float, "a positive number of seconds")
        if value is None:
            return default
        if not 0 < value < 86400:
            raise self.wrong(key, "a positive number of seconds")
        return float(value)

    def object(self, key: str) -> Mapping[str, Any]:
        return self._get(key, dict, "an object") or {}

    def inner(self, key: str) -> Fields:
        return self._of(self.object(key), f"{self.where}: {key}")

    def objects(self, key: str) -> list[Fields]:
        return [self._of(each, f"{self.where}: {key}[{at}]") for at, each in enumerate(self.items(key))]

    def items(self, key: str, expected: str = "a list") -> list[Any]:
        return self._get(key, list, expected) or []

    def strings(self, key: str) -> tuple[str, ...]:
        values = self.items(key)
        if not all(isinstance(each, str) for each in values):
            raise self.wrong(key, "a list of strings")
        return tuple(values)

    def addresses(self, key: str, *, prefix: bool = False) -> tuple[str, ...]:
        """IP addresses. prefix: each may have a prefix length."""
        for each in (values := self.items(key, "a list of addresses")):
            if not (isinstance(each, str) and (is_address(each) or (prefix and is_cidr(each)))):
                raise self._error(self.where, f"{key}: expected an IP address, found {shown(each)}")
        return tuple(values)

    def _get(self, key: str, kind: Any, expected: str) -> Any:
        value = self.data.get(key)
        if value is None and not self._strict:
            return None
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.wrong(key, expected)
        return value

    def _of(self, data: Any, where: str) -> Fields:
        return Fields(data, where, self._error, strict=self._strict)


def _meant(key: str, known: Mapping[str, str]) -> str:
    """The known key that is most like this one, if any is similar."""
    import difflib  # slow to import, but only an error needs it

    plain = {each.lower().replace("-", ""): right for each, right in known.items()}
    near = difflib.get_close_matches(key.lower().replace("-", "").replace("_", "")[:40], plain, n=1, cutoff=0.7)
    return plain[near[0]] if near else ""


def shown(value: object) -> str:
    """A value for messages: a list or an object by its type only, a long string by its beginning."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case list() | dict() if value:
            return "a list" if isinstance(value, list) else "an object"
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def is_address(text: str) -> bool:
    """Whether this is an IPv4 or IPv6 address, without a prefix length."""
    try:
        packed(text)
    except (OSError, ValueError):  # ValueError: not ASCII, or a NUL in it
        return False
    return True


def packed(address: str) -> bytes:
    """An address as the kernel has it. Raises OSError or ValueError for other text."""
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def hardware_address(text: str, size: int) -> str:
    """A hardware address as "02:00:00:00:00:01", from any form that Go's net.ParseMAC accepts; "" for other text.

    The forms: pairs of digits between colons or dashes (02-00-00-00-00-01), groups of four between dots
    (0200.0000.0001). size: how many bytes it must have.
    """
    parts = text.split(":") if ":" in text else text.split("-") if "-" in text else text.split(".")
    width = 2 if len(parts) == size else 4
    digits = "".join(parts)
    regular = len(digits) == size * 2 and all(len(part) == width for part in parts)
    if not regular or (width == 4) != ("." in text) or not set(digits) <= _HEX:
        return ""
    return ":".join(digits[at : at + 2] for at in range(0, size * 2, 2)).lower()


def is_cidr(text: str) -> bool:
    """Whether this is an IP address with a prefix length."""
    address, slash, length = text.partition("/")
    if not slash or not (length.isascii() and length.isdigit() and len(length) <= 3):
        return False
    return int(length) <= (128 if ":" in address else 32) and is_address(address)
