"""Watches a plugin's ipam plugin: a script in its place records each call, and can answer by itself.

It comes first in CNI_PATH, under the ipam plugin's name, so the tested plugin finds it like any other.
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
cat >"$here/$CNI_COMMAND.stdin"
env >"$here/$CNI_COMMAND.env"
if [ -f "$here/$CNI_COMMAND.answer" ]; then
  cat "$here/$CNI_COMMAND.answer"
  status=$(cat "$here/$CNI_COMMAND.status")
else
  {real} <"$here/$CNI_COMMAND.stdin" >"$here/$CNI_COMMAND.stdout"
  status=$?
  cat "$here/$CNI_COMMAND.stdout"
fi
printf '%s %s %s\\n' "$CNI_COMMAND" "$status" "$CNI_CONTAINERID" >>"$here/calls"
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
        directory.mkdir()
        script = directory / name
        script.write_text(_SCRIPT.format(here=directory, real=real))
        script.chmod(0o755)

    def answer(self, verb: str, answer: Json, status: int = 0) -> str:
        """Make it answer a verb by itself; returns this as shell."""
        text = json.dumps(answer)
        (self._directory / f"{verb}.answer").write_text(text)
        (self._directory / f"{verb}.status").write_text(str(status))
        return f"# the ipam plugin answers {verb} with status {status} and {text}"

    def calls(self) -> list[Delegated]:
        """The calls so far."""
        calls = self._directory / "calls"
        lines = calls.read_text().splitlines() if calls.exists() else []
        parts = [line.split(" ", 2) for line in lines]
        return [Delegated(verb=verb, container=container, status=int(status)) for verb, status, container in parts]

    def given(self, verb: str) -> Json:
        """The configuration of its last call with a verb; empty if there was none that it can be read from."""
        return self._object(f"{verb}.stdin")

    def answered(self, verb: str) -> Json:
        """The answer of its last call with a verb, in the same way."""
        return self._object(f"{verb}.stdout")

    def variables(self, verb: str) -> dict[str, str]:
        """The variables of its last call with a verb."""
        file = self._directory / f"{verb}.env"
        lines = file.read_text(errors="replace").splitlines() if file.exists() else []
        return {name: value for name, _, value in (line.partition("=") for line in lines)}

    def _object(self, name: str) -> Json:
        try:
            found = json.loads((self._directory / name).read_bytes())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}
