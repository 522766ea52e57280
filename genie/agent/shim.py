"""Provides the shim's executable: from the wheel, which has one for each architecture, otherwise from a compiler.

Used by `genie install`, by tests, and by hatch_build.py while a wheel is built (which loads this file by its path, so
it imports the standard library alone). The compiler is the `ziglang` package, which targets every architecture from
any; else, for the architecture of this machine only, `$GENIE_SHIM_CC` or the system's `cc` with a static C library
(glibc's or musl's).
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name("shim.c")
ARCHITECTURES = ("x86_64", "aarch64")
FLAGS = ("-std=gnu11", "-Os", "-static", "-s", "-Wall", "-Wextra", "-Werror")
_ALIASES = {"amd64": "x86_64", "arm64": "aarch64"}


class BuildError(Exception):
    """No compiler, or it failed; the message names the compilers tried, and the remedy."""


def host() -> str:
    """This machine's architecture, by the kernel's name."""
    return _known(platform.machine())


def binary(arch: str | None = None, *, as_shipped: bool = False) -> Path:
    """The shim for an architecture: the installed one, or one that is compiled now and stored in the user's cache.

    as_shipped: use the compiler of the wheels, although it takes a minute and the system's takes a second.

    Raises BuildError: there is none, and it could not be compiled.
    Raises ValueError: genie has no shim for such an architecture.
    """
    arch = _known(arch) if arch else host()
    key = hashlib.sha256(SOURCE.read_bytes() + repr(FLAGS).encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "genie" / "shim"
    shipped, quick = cache / f"shim-{arch}-{key}", cache / f"shim-{arch}-{key}-quick"
    usable = [SOURCE.with_name(f"shim-{arch}"), shipped, quick]
    for there in usable[: 2 if as_shipped else 3]:
        if there.exists():
            return there
    cache.mkdir(parents=True, exist_ok=True)
    made = shipped if as_shipped else quick
    build(arch, made, quick=not as_shipped)
    return made


def build(arch: str, to: Path, *, version: str = "", quick: bool = False) -> None:
    """Compile the shim with the first compiler that works; `to` is written atomically.

    quick: try the system's compiler first. ziglang's first run compiles a C library, which takes a minute.

    Raises BuildError: none worked.
    """
    compilers = _compilers(_known(arch))
    failures = []
    for name, command in reversed(compilers) if quick else compilers:
        with tempfile.TemporaryDirectory(dir=to.parent, prefix=".shim-") as folder:
            made = Path(folder) / "shim"
            defines = [f'-DGENIE_VERSION="{version}"'] if version else []
            try:
                done = subprocess.run(
                    [*command, *FLAGS, *defines, "-o", str(made), str(SOURCE)],
                    stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
                )  # fmt: skip
            except OSError as error:
                failures.append(f"{name}: {error.strerror}")
                continue
            if done.returncode == 0:
                made.chmod(0o755)
                made.replace(to)
                return
            failures.append(f"{name}: {done.stderr.strip()[-2000:]}")
    tried = "\n".join(failures) or "there is none"
    raise BuildError(
        f"the shim for {arch} could not be compiled. Install the package `ziglang`, or for this machine's architecture "
        f"set GENIE_SHIM_CC to a C compiler with a static C library. Tried:\n{tried}"
    )


def _compilers(arch: str) -> list[tuple[str, list[str]]]:
    chosen = os.environ.get("GENIE_SHIM_CC")
    if chosen:
        return [(chosen, shlex.split(chosen))] if arch == host() else []
    found = []
    if importlib.util.find_spec("ziglang"):
        found.append(("ziglang", [sys.executable, "-m", "ziglang", "cc", "-target", f"{arch}-linux-musl"]))
    if arch == host() and (cc := shutil.which("cc")):
        found.append((cc, [cc]))
    return found


def _known(arch: str) -> str:
    arch = _ALIASES.get(arch, arch)
    if arch not in ARCHITECTURES:
        raise ValueError(f"no shim for {arch}: genie has one for {', '.join(ARCHITECTURES)}")
    return arch
