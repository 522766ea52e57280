"""A plugin's ipam plugin, watched: a script in its place that writes down each call, and answers itself if it is to.

It stands first in CNI_PATH, under the ipam plugin's name, so the tested plugin finds it as it finds any other.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from harness.conformance.call import Json

_SCRIPT = """\
#!/bin/sh
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
here={here}
call=$(mktemp -d "$here/calls/XXXXXX")
printf '%s' "$CNI_COMMAND" >"$call/verb"
printf '%s' "$CNI_CONTAINERID" >"$call/container"
cat >"$call/stdin"
if [ -f "$here/$CNI_COMMAND.answer" ]; then
  cat "$here/$CNI_COMMAND.answer"
  status=$(cat "$here/$CNI_COMMAND.status")
else
  {real} <"$call/stdin" >"$call/stdout"
  status=$?
  cat "$call/stdout"
fi
printf '%s' "$status" >"$call/status"
exit "$status"
"""


@dataclass(frozen=True)
class Delegated:
    """One call that the tested plugin made."""

    verb: str
    container: str
    status: int


class Delegate:
    """The script in the ipam plugin's place."""

    def __init__(self, directory: Path, name: str, real: Path) -> None:
        self._directory = directory
        (directory / "calls").mkdir(parents=True)
        script = directory / name
        script.write_text(_SCRIPT.format(here=directory, real=real))
        script.chmod(0o755)

    def answer(self, verb: str, answer: Json, status: int = 0) -> str:
        """Have it answer a verb itself; that as shell."""
        text = json.dumps(answer)
        (self._directory / f"{verb}.answer").write_text(text)
        (self._directory / f"{verb}.status").write_text(str(status))
        return f"# the ipam plugin answers {verb} with status {status} and {text}"

    def calls(self) -> list[Delegated]:
        """The calls so far."""
        found = sorted((self._directory / "calls").iterdir(), key=lambda call: call.stat().st_mtime_ns)
        return [
            Delegated((call / "verb").read_text(), (call / "container").read_text(), int((call / "status").read_text()))
            for call in found
            if (call / "status").exists()
        ]
