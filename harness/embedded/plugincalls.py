"""What genie calls on a node: each plugin is a script that runs it and keeps what went in and out.

The script is the plugin's parent, in the same session; what ends the one ends the other. A plugin that calls another
(its ipam plugin) finds a script, too, so both are kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness.embedded import rootfs
from harness.embedded.runtime import masked

PLUGINS = "/opt/cni/plugins"  # what the scripts run
CALLS = Path("/var/log/cni-calls")
_SCRIPT = f"""\
#!/bin/sh
name=${{0##*/}}
place={CALLS}/$name.$CNI_COMMAND.$$
mkdir "$place" 2>/dev/null || exec {PLUGINS}/$name
export -p > "$place/env"
cat > "$place/stdin"
{PLUGINS}/$name < "$place/stdin" > "$place/stdout" 2> "$place/stderr"
status=$?
cat "$place/stdout"
[ ! -s "$place/stderr" ] || cat "$place/stderr" >&2
echo $status > "$place/status"
exit $status
"""


def install(directory: str, binaries: Iterable[str]) -> None:
    """Plugins in a node's directory, each as a script that keeps its calls."""
    binaries = list(binaries)
    for place in (CALLS, Path(PLUGINS)):
        place.mkdir(parents=True, exist_ok=True)
    rootfs.install(PLUGINS, binaries)
    for name in {Path(binary).name for binary in binaries}:
        script = Path(directory) / name
        if not script.is_symlink() and not script.exists():
            script.write_text(_SCRIPT)
            script.chmod(0o755)


def of_pod(namespace: str, pod: str) -> list[dict[str, Any]]:
    """The calls of plugins for a pod, oldest first, as reports have them."""
    wanted = {f"K8S_POD_NAMESPACE={namespace}", f"K8S_POD_NAME={pod}"}
    found = []
    for place in CALLS.iterdir():
        with suppress(OSError):
            env = _environment((place / "env").read_text(errors="replace"))
            if wanted <= set(env.get("CNI_ARGS", "").split(";")):
                found.append((place.joinpath("env").stat().st_mtime_ns, _call(place, env)))
    return [call for _, call in sorted(found, key=lambda each: each[0])]


def _call(place: Path, env: dict[str, str]) -> dict[str, Any]:
    status, began = place / "status", (place / "env").stat().st_mtime
    ended = status.exists()
    return {
        "binary": place.name.partition(".")[0],
        "env": env,
        "stdin": _shown((place / "stdin").read_text(errors="replace")),
        "status": int(status.read_text()) if ended else -9,  # it has not ended, or was killed with its script
        "stdout": (place / "stdout").read_text(errors="replace"),
        "stderr": (place / "stderr").read_text(errors="replace"),
        "seconds": round(status.stat().st_mtime - began, 4) if ended else 0.0,
    }


def _environment(exported: str) -> dict[str, str]:
    """The CNI_ variables of `export -p`: no value of theirs holds a line's end."""
    lines = (line.removeprefix("export ").partition("=") for line in exported.splitlines())
    return {name: value.strip("'\"") for name, _, value in lines if name.startswith("CNI_")}


def _shown(text: str) -> str:
    """A configuration without secrets; what is none as it is."""
    with suppress(ValueError):
        return json.dumps(masked(json.loads(text)))
    return text
