"""What came of `nox -s mutants`: the share of mutants that a test kills, and the survivors without an explanation.

Not every survivor is a gap in the tests. Two kinds are let be:

- words: a literal with a blank in it, changed in its case or with `XX` around it. Tests look for what a message has to
  name, not for each of its words.
- what tests/mutants.toml lists with a reason: the function, and the line as the mutant has it. A mutant's number is no
  name for it, for it changes with every edit.

`python -m tests.mutants`, after `python -m tests.mutate` with the same arguments. It fails where another one survives,
and where one was not checked.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from tests.mutate import parser

EXPLAINED = Path(__file__).with_name("mutants.toml")
CAUGHT = ("killed", "timeout", "segfault")
SURVIVED = ("survived", "no tests")


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """name: as `mutmut show` takes it. removed, added: the lines that it changes, without the blanks around them."""

    name: str
    removed: tuple[str, ...]
    added: tuple[str, ...]

    @property
    def function(self) -> str:
        """`genie.records.Records.read`, out of mutmut's `genie.records.xǁRecordsǁread__mutmut_7`."""
        module, _, function = self.name.rpartition("__mutmut_")[0].rpartition(".")
        return f"{module}.{function.removeprefix('x_').removeprefix('xǁ').replace('ǁ', '.')}"

    @property
    def is_wording(self) -> bool:
        """Whether it changes no more than the words of a message."""
        before, after = "\n".join(self.removed), "\n".join(self.added)
        if wrapped := re.search(r"XX(.*?)XX", after):
            return " " in wrapped[1].strip() and after.replace("XX", "") == before
        if before.lower() != after.lower():
            return False
        differing = [at for at, (one, other) in enumerate(zip(before, after, strict=True)) if one != other]
        return " " in after[differing[0] : differing[-1]]


def _mutants(patterns: Sequence[str]) -> Iterator[tuple[str, str, Mutant | None]]:
    """Each mutant's module and status; with its lines, if it survived."""
    from mutmut.mutation.data import SourceFileMutationData
    from mutmut.mutation.diff_apply import get_diff_for_mutant
    from mutmut.stats import status_by_exit_code
    from mutmut.utils.file_utils import walk_mutatable_files

    for path in walk_mutatable_files():
        data = SourceFileMutationData(path=path)
        data.load()
        for name, code in data.exit_code_by_key.items():
            if patterns and not any(fnmatch(name, each) for each in patterns):
                continue
            status = status_by_exit_code[code]
            if status not in SURVIVED:
                yield str(path), "killed" if status in CAUGHT else status, None
                continue
            lines = get_diff_for_mutant(name, path=path).splitlines()[2:]
            removed, added = ([line[1:].strip() for line in lines if line[0] == sign] for sign in "-+")
            yield str(path), status, Mutant(name=name, removed=tuple(removed), added=tuple(added))


def explained(text: str) -> dict[tuple[str, str], str]:
    """Function and line → why no test can or need kill it. Raises ValueError where a reason is missing or a line is
    there twice.
    """
    found: dict[tuple[str, str], str] = {}
    for entry in tomllib.loads(text)["survivors"]:
        for line in entry["lines"]:
            if not entry["why"] or (entry["function"], line) in found:
                raise ValueError(f"{entry['function']}: {line}: expected one reason")
            found[entry["function"], line] = entry["why"]
    return found


def main(patterns: Sequence[str]) -> int:
    """Print a line for each module and each survivor without a reason, of the mutants that match any of the patterns,
    by default all. Returns the exit status.
    """
    reasons = explained(EXPLAINED.read_text())
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    unexplained = 0
    killed = dict(reasons)
    for path, status, mutant in _mutants(patterns):
        if mutant is None:
            counts[path][status] += 1
            continue
        kind = "words" if mutant.is_wording else "open"
        lines = [(mutant.function, line) for line in mutant.added or mutant.removed]
        if any(line in reasons for line in lines):
            kind = "explained"
            for line in lines:
                killed.pop(line, None)
        counts[path][kind] += 1
        if kind == "open":
            unexplained += 1
            print(f"{status}: {mutant.name}", *(f"  - {line}" for line in mutant.removed), sep="\n")
            print(*(f"  + {line}" for line in mutant.added), sep="\n")
    counts["all"] = sum(counts.values(), Counter())
    if not patterns and not counts["all"]["not checked"]:
        print(*(f"explained, but killed or gone: {function}: {line}" for function, line in killed), sep="\n")
    for path, kinds in counts.items():
        meant = kinds["killed"] + kinds["open"] + kinds["explained"]
        rest = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()) if kind != "killed")
        print(f"{path}: {kinds['killed']} of {meant} killed ({100 * kinds['killed'] / max(meant, 1):.1f} %); {rest}")
    return 1 if unexplained or counts["all"].keys() - {"killed", "explained", "words"} else 0


if __name__ == "__main__":
    sys.exit(main(parser().parse_args().patterns))
