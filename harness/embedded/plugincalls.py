"""Records genie's calls of plugins on a node: a script in place of each plugin runs it and stores input and output.

The script is the plugin's parent, in the same session, so a kill ends both. A plugin that calls another one (its ipam
plugin) also finds a script, so both calls are recorded.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness.download import digest
from harness.embedded import rootfs, runtime

PLUGINS = "/opt/cni/plugins"  # the real plugins
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
    """Install plugins in a node's directory, each as a script that records its calls."""
    binaries = list(binaries)
    for place in (CALLS, Path(PLUGINS)):
        place.mkdir(parents=True, exist_ok=True)
    rootfs.install(PLUGINS, binaries)
    for name in {Path(binary).name for binary in binaries}:
        script = Path(directory) / name
        if not script.is_symlink() and not script.exists():
            script.write_text(_SCRIPT)
            script.chmod(0o755)


def checksums() -> dict[str, str]:
    """The SHA-256 of each plugin of this node, by name; of the real one, where a script is in its place."""
    places = [Path(place) for place in (runtime.BINARIES, PLUGINS)]
    files = {path.name: path for place in places if place.is_dir() for path in place.iterdir() if path.is_file()}
    return {name: digest(path, "sha256") for name, path in sorted(files.items())}


def of_pod(namespace: str, pod: str) -> list[dict[str, Any]]:
    """The calls of plugins for a pod, oldest first, in the form of reports."""
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
        "status": int(status.read_text()) if ended else -9,  # it still runs, or was killed with its script
        "stdout": (place / "stdout").read_text(errors="replace"),
        "stderr": (place / "stderr").read_text(errors="replace"),
        "seconds": round(status.stat().st_mtime - began, 4) if ended else 0.0,
    }


def _environment(exported: str) -> dict[str, str]:
    """The CNI_ variables of `export -p`; their values have no line breaks."""
    lines = (line.removeprefix("export ").partition("=") for line in exported.splitlines())
    return {name: value.strip("'\"") for name, _, value in lines if name.startswith("CNI_")}


def _shown(text: str) -> str:
    """A configuration without secrets; other text unchanged."""
    with suppress(ValueError):
        return json.dumps(runtime.masked(json.loads(text)))
    return text
