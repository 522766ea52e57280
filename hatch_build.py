"""The build hook: compiles the shim (genie/agent/shim.c) into every wheel, for each architecture that genie supports,
and packs fixtures and scenarios into the harness.

One wheel serves all of them, `py3-none-any`: the shims are files that `genie install` puts on a node, not modules.
None is committed. The compiler is the `ziglang` package, which the build requires here and which targets every
architecture from any. Where it is not to be had, GENIE_SHIM_CC names a C compiler with a static C library instead
(`GENIE_SHIM_CC=cc`), and the wheel has a shim for the machine's own architecture alone. An editable install compiles
nothing: there, genie.agent.shim does when it is asked.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

COMPILER = "ziglang>=0.13"


class ShimBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Named in pyproject.toml: [tool.hatch.build.targets.wheel.hooks.custom]."""

    _made: tempfile.TemporaryDirectory[str] | None = None

    def dependencies(self) -> list[str]:
        """What the build takes beside hatchling."""
        return [] if os.environ.get("GENIE_SHIM_CC") else [COMPILER]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Before the wheel is packed: compile, and have the results put into it."""
        if version == "editable":
            return
        # What the harness reads beside its code. An editable install finds it beside the package.
        build_data["force_include"] |= {
            str(path): f"harness/{path.relative_to(self.root)}"
            for folder in ("fixtures", "scenarios")
            for path in sorted((Path(self.root) / folder).rglob("*"))
            if path.is_file() and "__pycache__" not in path.parts
        }
        shim = _load(Path(self.root) / "genie" / "agent" / "shim.py")
        architectures = (shim.host(),) if os.environ.get("GENIE_SHIM_CC") else shim.ARCHITECTURES
        self._made = tempfile.TemporaryDirectory(prefix="genie-shim-")
        for arch in architectures:
            made = Path(self._made.name) / f"shim-{arch}"
            shim.build(arch, made, version=self.metadata.version)
            build_data["force_include"][str(made)] = f"genie/agent/{made.name}"
            self.app.display_info(f"compiled the shim for {arch}: {made.stat().st_size} bytes")

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Afterwards: leave nothing behind."""
        if self._made:
            self._made.cleanup()


def _load(path: Path) -> ModuleType:
    """genie/agent/shim.py by its path, for genie is not installed while it is built."""
    spec = importlib.util.spec_from_file_location("genie_agent_shim", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
