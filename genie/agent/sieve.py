"""Reads JSON of any size as a stream, and keeps only the wanted fields.

A user can create objects as large as the API server accepts, and a list has all of them. So an answer of the API server
is never held or decoded as a whole. A value of up to `WINDOW` characters is decoded by the standard library. Of a
longer one only the wanted fields are read, and the rest is skipped, a few microseconds at a time. Pure, except that it
reads its input piece by piece; `pages` asks for a list.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from genie.cni.errors import CniError, Code
from genie.kube import JSON, NETWORK_OBJECTS, Client

WINDOW = 2 * 65536
"""The limit for a value to decode at once, in characters; other threads wait during that. An annotation and a
configuration of the longest size that genie accepts fit, with each quote escaped.
"""

Wanted = Mapping[str, Any]
"""The wanted keys of an object: each with True for the whole value, or with the wanted keys of that."""

_BLANK = re.compile(r"[ \t\r\n]*")
_PLAIN = re.compile(r'[^"\\]*')
_MARK = re.compile(r'["{}\[\]]')
_ENDS = frozenset(" \t\r\n,:]}")  # what comes after a number
_SCALAR = re.compile(r"[^ \t\r\n,:\]}]*")


@dataclass(frozen=True)
class TooLong:
    """Replaces a value that was skipped because it is too long or nested too deeply. size: characters of JSON."""

    size: int


class _CutOffError(Exception):
    """A value is not complete yet."""


def decode(data: bytes, wanted: Wanted) -> Any:
    """One JSON text.

    Raises ValueError: it is not valid JSON.
    """
    sieve = Sieve(data[at : at + WINDOW] for at in range(0, len(data), WINDOW))
    return sieve.value(wanted)


def pages(
    client: Client, path: str, wanted: Wanted, *, accept: str = JSON, limit: int = 500, within: float = 10.0
) -> Iterator[tuple[list[dict[str, Any]], Mapping[str, Any]]]:
    """A list of the API server, page by page: the wanted fields of the items, and the page's metadata.

    limit: objects in a page.
    within: seconds for a page.

    Raises CniError: 11; the API server does not answer, or with an error. There is no such resource: nothing.
    """
    token = ""
    while True:
        query = urlencode({"limit": limit, "continue": token})
        status, pieces = client.open(f"{path}?{query}", accept, within=within)
        with closing(pieces):
            if status == 404:
                return
            if status != 200:
                raise CniError(Code.TRY_AGAIN, f"the API server answers {status} to a list of {path}")
            page = Sieve(pieces)
            try:
                items = list(page.items(wanted))
            except ValueError as error:
                raise CniError(Code.TRY_AGAIN, f"the API server answers no list of {path}: {error}") from error
            for _ in pieces:  # what ends it: the connection is good for another page then
                pass
        meta = page.metadata if isinstance(page.metadata, dict) else {}
        yield items, meta
        if not (token := str(meta.get("continue") or "")):
            return


def logical_networks(client: Client) -> list[dict[str, Any]]:
    """All Logicalnetworks and Physicalnetworks of the cluster. Raises CniError: as `pages`."""
    found = []
    for kind in ("LogicalNetwork", "PhysicalNetwork"):
        group, resource = NETWORK_OBJECTS[kind]
        for items, _ in pages(client, f"/apis/{group}/{resource}", {"metadata": True, "spec": True}):
            found += [{**item, "kind": kind} for item in items]
    return found


class Sieve:
    """Reads JSON values from pieces of text.

    All methods raise ValueError for invalid JSON, and the exceptions of the pieces.
    """

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._scan = json.JSONDecoder().raw_decode
        self._text, self._at, self._before, self._ended = "", 0, 0, False
        self._ends_line = False
        self.metadata: Any = {}

    @property
    def position(self) -> int:
        """The number of characters read so far."""
        return self._before + self._at

    def items(self, wanted: Wanted) -> Iterator[dict[str, Any]]:
        """The items of a list of the API server, one by one; its `metadata` is in `metadata` at the end."""
        is_list = False  # a proxy's own answer is none, and would mean that nothing exists any more
        for key in self._keys():
            is_list = is_list or key == "items"
            if key == "metadata":
                self.metadata = self.value({"continue": True, "resourceVersion": True})
            elif key == "items" and self._peek() == "[":
                for _ in self._members("[", "]"):
                    yield _object(self.value(wanted))
            elif key == "items" and self._peek() != "n":  # null: there are none
                raise ValueError("items: expected a list")
            else:
                self.skip()
        if not is_list:
            raise ValueError("expected an object with `items`")

    def events(self, wanted: Wanted) -> Iterator[dict[str, Any]]:
        """The events of a watch, each as soon as it arrives, with the wanted fields of its object."""
        while self._peek():
            yield _object(self.value({"type": True, "object": wanted}))

    def value(self, wanted: Wanted | bool) -> Any:
        """The next value: a short one whole; of an object that is long or nested too deeply, the wanted fields; for any
        other such value, TooLong.
        """
        begin = self._peek() and self.position
        try:
            return self._whole()
        except _CutOffError:
            pass
        if self._peek() == "{" and not isinstance(wanted, bool):
            found = {}
            for key in self._keys():
                if key in wanted:
                    found[key] = self.value(wanted[key])
                else:
                    self.skip()
            return found
        self.skip()
        return TooLong(self.position - int(begin))

    def skip(self) -> None:
        """Skip the next value."""
        first = self._peek()
        if first == '"':
            self._skip_string()
        elif first in "{[" and first:
            self._skip_nested()
        else:
            self._skip_scalar()

    def _whole(self) -> Any:
        """Decode the next value if it ends within the window."""
        tried = 0
        while True:
            window = self._text[self._at : self._at + WINDOW]
            # Not with every piece: each attempt has twice as much text as the one before.
            if len(window) >= min(2 * tried, WINDOW) or self._ends_line or self._ended:
                tried = len(window)
                no_more = tried < WINDOW and (self._ended or self._ends_line)
                try:
                    value, end = self._scan(window)
                except RecursionError:  # the standard library nests no deeper: read it field by field
                    raise _CutOffError from None
                except ValueError as error:
                    if no_more:
                        raise ValueError(f"not valid JSON: {error}") from error
                else:
                    goes_on = window[end : end + 1] not in _ENDS if end < len(window) else not self._ended
                    if not (goes_on and isinstance(value, int | float)):
                        self._at += end
                        return value
                    if no_more:  # to make this a number: "1." or "12x"
                        raise ValueError(f"not valid JSON: expected the end of a number after {value}")
                if len(window) == WINDOW:
                    raise _CutOffError
            self._more()

    def _keys(self) -> Iterator[str]:
        """The keys of the next object; the caller must read each value before the next key."""
        for _ in self._members("{", "}"):
            key = self.value(True)
            self._expect(":")
            yield key if isinstance(key, str) else ""

    def _members(self, begin: str, end: str) -> Iterator[None]:
        self._expect(begin)
        if self._peek() == end:
            self._at += 1
            return
        while True:
            yield
            if self._peek() == end:
                self._at += 1
                return
            self._expect(",")

    def _expect(self, character: str) -> None:
        if (found := self._peek()) != character:
            raise ValueError(f"not valid JSON: expected {character!r}, found {found!r}")
        self._at += 1

    def _peek(self) -> str:
        """The next character that is not blank; "" at the end."""
        while True:
            match = _BLANK.match(self._text, self._at)
            self._at = match.end() if match else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if self._ended:
                return ""
            self._more()

    def _skip_nested(self) -> None:
        depth = 0
        while True:
            match = _MARK.search(self._text, self._at)
            if match is None:
                self._at = len(self._text)
                self._need()
                continue
            self._at = match.end()
            if match[0] == '"':
                self._at -= 1
                self._skip_string()
            else:
                depth += 1 if match[0] in "{[" else -1
                if not depth:
                    return

    def _skip_string(self) -> None:
        self._at += 1
        while True:
            match = _PLAIN.match(self._text, self._at)
            self._at = match.end() if match else self._at
            if self._at + 1 >= len(self._text) and not self._text.endswith('"', self._at):
                self._need()
            elif self._text[self._at] == '"':
                self._at += 1
                return
            else:
                self._at += 2  # a backslash, and the escaped character

    def _skip_scalar(self) -> None:
        begin = self.position
        while True:
            match = _SCALAR.match(self._text, self._at)
            self._at = match.end() if match else self._at
            if self._at < len(self._text) or self._ended:
                break
            self._more()
        if self.position == begin:
            raise ValueError("not valid JSON: expected a value")

    def _need(self) -> None:
        if self._ended:
            raise ValueError("not valid JSON: it is cut off")
        self._more()

    def _more(self) -> None:
        piece = next(self._pieces, None)
        self._ended = piece is None
        new = self._utf8.decode(piece or b"", self._ended)
        self._ends_line = new.endswith("\n")
        self._before += self._at
        self._text, self._at = self._text[self._at :] + new, 0


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"expected an object, found {type(value).__name__}")
    return value
