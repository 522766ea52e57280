"""YAML with positions: the values of a file, and the place of each in the file.

The author of a scenario needs `calico.yaml:7:12: pods.a.nodes: …`, not a validation error without a place. PyYAML's
node tree has the places. This module keeps it with the plain values, and converts a path into the values ("pods", "a",
"node") to a line and a column.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

Loc = Sequence[str | int]

_WORDS: Mapping[str, str] = {
    "string_type": "expected a string",
    "string_too_short": "expected a text that is not empty",
    "int_type": "expected a whole number",
    "int_parsing": "expected a whole number",
    "bool_type": "expected true or false",
    "bool_parsing": "expected true or false",
    "date_type": "expected a date such as 2027-01-31",
    "dict_type": "expected a mapping",
    "model_type": "expected a mapping",
    "tuple_type": "expected a list",
    "list_type": "expected a list",
    "model_attributes_type": "expected a mapping",
}
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, kw_only=True, order=True)
class Mistake:
    """One mistake in a file, in words that help to correct it."""

    file: str
    line: int
    column: int
    field: str  # "pods.a.node"; empty: the whole file
    text: str

    def __str__(self) -> str:
        field = f"{self.field}: " if self.field else ""
        return f"{self.file}:{self.line}:{self.column}: {field}{self.text}"


class Mistakes(Exception):
    """A file cannot be used; has all mistakes, in the order of lines."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        self.mistakes = tuple(sorted(mistakes))
        super().__init__("\n".join(map(str, self.mistakes)))


@dataclass(frozen=True)
class YamlFile:
    """A YAML file: its values, and their nodes."""

    file: str
    values: Any
    _root: Any

    @classmethod
    def read(cls, path: Path, shown: str = "", edit: Callable[[str], str] = str) -> YamlFile:
        """Read a file, with an edit applied to its text.

        Raises Mistakes: it cannot be read, is not YAML, is empty, or has a key twice.
        """
        shown = shown or str(path)
        try:
            return cls.parse(edit(path.read_text(encoding="utf-8")), shown)
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise Mistakes([Mistake(file=shown, line=1, column=1, field="", text=f"cannot be read: {why}")]) from error

    @classmethod
    def parse(cls, text: str, file: str) -> YamlFile:
        """The same for a text."""
        try:
            loader = _Loader(text)
            root = loader.get_single_node()
            if root is None:
                raise Mistakes([Mistake(file=file, line=1, column=1, field="", text="the file is empty")])
            found = cls(file, None, root)
            if twice := list(found._twice(root, ())):
                raise Mistakes(twice)
            return cls(file, loader.construct_document(root), root)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
            problem = ", ".join(part for part in (error.context, error.problem) if part)
            raise Mistakes(
                [Mistake(file=file, line=line, column=column, field="", text=f"not YAML: {problem}")]
            ) from error
        except yaml.YAMLError as error:
            raise Mistakes([Mistake(file=file, line=1, column=1, field="", text=f"not YAML: {error}")]) from error

    def mistake(self, loc: Loc, text: str, *, at_key: bool = False) -> Mistake:
        """A mistake at the value at the path `loc`, or at its key; otherwise at the nearest place in the file."""
        node, mark, found = self._root, self._root.start_mark, list[str | int]()
        for depth, part in enumerate(loc):
            last = depth == len(loc) - 1
            if isinstance(node, yaml.MappingNode):
                pair = next(((key, value) for key, value in node.value if key.value == str(part)), None)
                if pair is not None:
                    node = pair[1]
                    mark = (pair[0] if last and at_key else node).start_mark
                elif not last:
                    continue  # a step that the short form leaves out
            elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
                node = node.value[part]
                mark = node.start_mark
            elif not last or isinstance(part, int):
                continue
            found.append(part)
        return Mistake(file=self.file, line=mark.line + 1, column=mark.column + 1, field=dotted(found), text=text)

    def worded(self, error: Mapping[str, Any], keys: Iterable[str] = (), *, at_key: bool = False) -> Mistake:
        """A pydantic error in plain words, with its place.

        keys: the valid keys, for an unknown key.
        """
        kind, loc, given = error["type"], error["loc"], error["input"]
        if kind == "extra_forbidden":
            return self.mistake(loc, f"unknown key{hint(str(loc[-1]), keys)}", at_key=True)
        if kind == "missing":
            return self.mistake(loc, "is missing", at_key=True)
        if kind == "string_pattern_mismatch":
            return self.mistake(loc, f"{given!r} does not fit {error['ctx']['pattern']}", at_key=at_key)
        if kind in _WORDS:
            return self.mistake(loc, f"{_WORDS[kind]}, got {_shown(given)}")
        if kind == "literal_error":
            meant = nearest(str(given), re.findall(r"'([^']*)'", error["ctx"]["expected"]))
            hinted = f"; did you mean {meant!r}?" if meant else ""
            return self.mistake(loc, f"expected {error['ctx']['expected']}, got {_shown(given)}{hinted}")
        text = str(error["msg"]).removeprefix("Value error, ")
        return self.mistake(loc, text[:1].lower() + text[1:], at_key=at_key)

    def _twice(self, node: Any, loc: tuple[str | int, ...]) -> list[Mistake]:
        """Duplicate keys of a mapping: YAML forbids them, but PyYAML uses the last one."""
        found: list[Mistake] = []
        if isinstance(node, yaml.MappingNode):
            seen: dict[str, int] = {}
            for key, value in node.value:
                name = str(key.value)
                if name in seen:
                    line, column = key.start_mark.line + 1, key.start_mark.column + 1
                    text = f"given twice (first in line {seen[name]})"
                    found.append(
                        Mistake(file=self.file, line=line, column=column, field=dotted((*loc, name)), text=text)
                    )
                seen.setdefault(name, key.start_mark.line + 1)
                found += self._twice(value, (*loc, name))
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                found += self._twice(value, (*loc, index))
        return found


def dotted(loc: Loc) -> str:
    """`pods.a.ports[0].port` for a path."""
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _shown(value: object) -> str:
    match value:
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
    return repr(value)


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that was probably meant, or None."""
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return matches[0] if matches else ""


def hint(word: str, known: Iterable[str]) -> str:
    """The rest of a message after "unknown X": the name that was probably meant, and all known names."""
    names = sorted(map(str, known))
    meant = nearest(word, names)
    listed = ", ".join(names) or "none"
    return f"; did you mean {meant!r}? (known: {listed})" if meant else f" (known: {listed})"
