"""`harness profile`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

CHECK = """\
Report all mistakes in profiles, with file, line, column, field and the expected value. The plugins are searched in the
profile's directory, in --path, in $GENIE_CNI_BIN and in /opt/cni/bin, and are asked for their versions.

Exit status: 0 no mistakes, 1 mistakes, 2 a file cannot be read.
"""


def add_arguments(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The subcommands."""
    raw = argparse.RawDescriptionHelpFormatter
    checking = commands.add_parser(
        "check", help="report all mistakes in a profile, with file, line and column", description=CHECK,
        formatter_class=raw,
    )  # fmt: skip
    checking.add_argument("files", nargs="+", type=Path, metavar="FILE")
    checking.add_argument("--path", type=Path, action="append", default=[], help="a directory with plugins")
    checking.set_defaults(do=_check)


def _check(options: argparse.Namespace) -> int:
    """Returns 0 without mistakes, 1 with mistakes, 2 if a file cannot be read."""
    from harness.conformance.profile.check import mistakes

    wrong = 0
    for path in options.files:
        for mistake in mistakes(path, options.path):
            print(mistake)
            wrong += 1
    count = len(options.files)
    found = f"{wrong} mistake{'s' * (wrong != 1)}" if wrong else "no mistakes"
    print(f"{count} file{'s' * (count != 1)}, {found}", file=sys.stderr)
    return 2 if not all(map(_is_readable, options.files)) else 1 if wrong else 0


def _is_readable(path: Path) -> bool:
    try:
        path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    return True
