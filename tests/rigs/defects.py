"""The example plugin with a defect, as a subject for the conformance suite."""

from __future__ import annotations

import atexit
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from shutil import copytree, rmtree
from subprocess import run
from tempfile import mkdtemp
from typing import Any

from harness.conformance.subject import Subject, of

PLUGINS = Path(__file__).parents[2] / "fixtures" / "plugins"
SUBNET = {
    "type": "example-veth",
    "subnet": "10.88.0.0/24",
    "capabilities": {"mac": True, "ips": True},
    "dns": {"nameservers": ["198.51.100.53"]},
}
RANGES = {"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}
#: The networks, by the name that a defect has for them. `TESTED` has the plugin that is tested in it.
DUAL = {
    "type": "host-local",
    "ranges": [[{"subnet": "10.88.0.0/24"}], [{"subnet": "2001:db8:88::/64"}]],
    "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
}
CONFS: dict[str, list[dict[str, Any]]] = {
    "subnet": [SUBNET],
    "host-local": [{"type": "example-veth", "ipam": RANGES}],
    "dual": [{"type": "example-veth", "ipam": DUAL}],
    "example-ipam": [{"type": "example-veth", "ipam": {"type": "example-ipam", "subnet": "10.88.0.0/24"}}],
    "chain": [SUBNET, {"type": "example-mtu", "mtu": 1400}],
}
TESTED = {"chain": "example-mtu"}


@dataclass(frozen=True, kw_only=True)
class Defect:
    """A defect as listed by fixtures/plugins/defects.py."""

    name: str
    sentence: str
    check: str
    blame: str
    also: tuple[str, ...]
    conf: str
    version: str
    rounds: int
    verbs: tuple[str, ...] = ()


def table() -> list[Defect]:
    """All defects."""
    listed = run([sys.executable, PLUGINS / "defects.py", "--json"], capture_output=True, check=True).stdout
    return [
        Defect(**{**each, "also": tuple(each["also"]), "verbs": tuple(each["verbs"])}) for each in json.loads(listed)
    ]


@cache
def _compiled() -> str:
    """A command that acts as one of the plugins: quicker than the file, which Python compiles at each call."""
    copy = Path(mkdtemp(prefix="defects-"))
    atexit.register(rmtree, copy, ignore_errors=True)
    copytree(PLUGINS, copy, dirs_exist_ok=True)
    python = shlex.join([sys.executable, "-I", "-S", "-B", "-c"])
    run([sys.executable, "-m", "compileall", "-q", copy], check=True)
    return f"{python} 'import sys; sys.path.insert(0, \"{copy}\"); import defects; defects.act(sys.argv[1:])'"


def subject(directory: Path, defect: Defect, paths: Sequence[Path] = ()) -> Subject:
    """The example plugins with a defect, to be tested in its version; without a version, in all of the plugin's.

    directory: an empty one, for the executables.
    defect: without a name, the plugins have none.
    paths: directories with the reference plugins.
    """
    tested = TESTED.get(defect.conf, "example-veth")
    wrong = "example-ipam" if (defect.blame, defect.conf) == ("ipam plugin", "example-ipam") else tested
    for plugin in ("example-veth", "example-ipam", "example-mtu"):
        target = defect.name if defect.name and plugin == wrong else plugin
        binary = directory / plugin
        binary.write_text(f"#!/bin/sh\nexec {_compiled()} {target}\n")
        binary.chmod(0o755)
    network = {"cniVersion": defect.version or "1.1.0", "name": "example", "plugins": CONFS[defect.conf]}
    found = of(network, "the example's configuration", directory / tested, paths=paths)
    return replace(found, supported=(defect.version,)) if defect.version else found
