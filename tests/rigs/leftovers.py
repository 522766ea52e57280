"""Plugins that start other processes, and a list of the running ones."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

#: Ways in which a plugin can start other processes, during its life or beyond it.
WAYS = {
    "itself": "exec sleep 60",
    "child": "sleep 60 & wait",
    "grandchild": "sh -c 'sh -c \"sleep 60; :\"; :'; :",
    "session": "setsid sleep 60 & wait",
    "orphan": "(setsid sh -c 'sleep 60; :' &); sleep 60",
    "silent": "setsid sleep 60 <&- >&- 2>&- & wait",
    "deaf": "trap '' TERM INT HUP; (trap '' TERM; sleep 60; :) & wait",
    "stopped": "sleep 60 & kill -STOP $$",
    "python": f'{sys.executable} -c \'import subprocess; subprocess.run(["sleep", "60"], start_new_session=True)\'; :',
    "busy": "while :; do sleep 0.01 & sleep 0.01; done",
}

_WAIT = "until [ -e {} ]; do sleep 0.02; done"


class Started:
    """A directory with plugins; their processes are identified by an environment variable."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.env = {"PATH": os.defpath, "X": str(path)}
        go, done = path / "go", path / "done"
        #: A plugin with a worker process in a separate session, which waits for the file `go`.
        self.beside = f"(setsid sh -c '{_WAIT.format(go)}; touch {done}' &); {_WAIT.format(done)}"

    def plugin(self, text: str, name: str = "plugin") -> str:
        """A plugin as a shell script."""
        file = self.path / name
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)
        return str(file)

    def has_not_begun(self) -> bool:
        """Whether the file `begun` does not exist yet."""
        return not (self.path / "begun").exists()

    def running(self) -> list[int]:
        """The plugins and the processes that they started, without zombies."""
        mark, found = f"\0X={self.path}\0".encode(), []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if mark in b"\0" + (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
        return sorted(found)

    def end(self) -> None:
        """Kill the remaining processes."""
        for pid in self.running():
            os.kill(pid, signal.SIGKILL)
