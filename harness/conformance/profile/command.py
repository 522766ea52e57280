"""`harness profile`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from harness.exits import Exit

CHECK = """\
Report all mistakes in profiles, with file, line, column, field and the expected value. The plugins are searched in the
profile's directory, in --path, in $GENIE_CNI_BIN and in /opt/cni/bin, and are asked for their versions.

Exit status: 0 no mistakes, 1 mistakes, 4 a file cannot be read.
"""


INIT = """\
Look at a plugin's executable and its configuration, ask what cannot be found out, and write a profile. The plugin is
asked for its versions, and attaches a container on a machine of its own. Without a terminal, or with --yes, nothing is
asked; what is taken instead is reported.

Exit status: 0 the profile is written, 1 it is, and `harness profile check` finds something in it, 4 nothing is written.
"""


def add_arguments(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    raw = argparse.RawDescriptionHelpFormatter
    checking = commands.add_parser(
        "check", help="report all mistakes in a profile, with file, line and column", description=CHECK,
        formatter_class=raw,
    )  # fmt: skip
    checking.add_argument("files", nargs="+", type=Path, metavar="FILE")
    checking.add_argument("--path", type=Path, action="append", default=[], help="a directory with plugins")
    checking.set_defaults(do=_check)

    making = commands.add_parser("init", help="write a profile for a plugin", description=INIT, formatter_class=raw)
    making.add_argument("--plugin", type=Path, help="the plugin's executable")
    making.add_argument("--conf", type=Path, help="its configuration, as in /etc/cni/net.d")
    making.add_argument("--path", type=Path, action="append", default=[], help="a directory with further plugins")
    making.add_argument("--out", type=Path, metavar="FILE", help="default: the network's name with .yaml")
    making.add_argument("--yes", action="store_true", help="ask nothing")
    making.add_argument("--force", action="store_true", help="replace the file if it exists")
    making.set_defaults(do=_init)


def _check(options: argparse.Namespace) -> int:
    """Returns 0 without mistakes, 1 with mistakes, 4 if a file cannot be read."""
    from harness.conformance.profile.check import mistakes

    wrong = 0
    for path in options.files:
        for mistake in mistakes(path, options.path):
            print(mistake)
            wrong += 1
    count = len(options.files)
    found = f"{wrong} mistake{'s' * (wrong != 1)}" if wrong else "no mistakes"
    print(f"{count} file{'s' * (count != 1)}, {found}", file=sys.stderr)
    return Exit.USAGE if not all(map(_is_readable, options.files)) else 1 if wrong else 0


def _is_readable(path: Path) -> bool:
    try:
        path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    return True


def _init(options: argparse.Namespace) -> int:
    """Returns 0 if a profile is written, 1 if it has mistakes, 4 if none is written."""
    from harness.conformance.profile import check, init
    from harness.conformance.subject import Unusable

    questions = init.Questions(terminal=sys.stdin.isatty() and not options.yes)
    try:
        found = init.configured(options.plugin, options.conf, options.path, questions)
        profile = init.written(found, questions)
        out = options.out or Path(f"{profile.name}.yaml")
        if out.exists() and not options.force and not questions.sure(f"{out} exists: replace it"):
            raise Unusable(f"{out}: exists; expected another --out, or --force")
        out.write_text(profile.text, encoding="utf-8")
    except (Unusable, OSError) as error:
        print(f"nothing was written: {error}", file=sys.stderr)
        return Exit.USAGE
    except (EOFError, KeyboardInterrupt):
        print("\nnothing was written", file=sys.stderr)
        return Exit.USAGE
    if questions.taken:
        print("Taken without asking:", *(f"  {each}" for each in questions.taken), sep="\n")
    mistakes = check.mistakes(out, [found.plugin.absolute().parent, *options.path])
    print(*mistakes, f"{out} is written. Next:", *init.following(out, profile.name, found), sep="\n")
    return 1 if mistakes else 0
