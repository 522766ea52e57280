"""Access to the Docker engine through the `docker` command, which kind also needs and which follows the user's
contexts.

The error of a command has the command line and the end of its output, because most problems of a cluster on a laptop
occur here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.contract import Unavailable
from harness.waiting import limit


class CommandFailed(Exception):
    """A command failed; the message has the command and the end of its output."""


def run(
    *argv: str,
    stdin: bytes | None = None,
    timeout: float = 600.0,
    check: bool = True,
    env: Mapping[str, str] | None = None,
) -> str:
    """Run a command and return its standard output.

    Raises CommandFailed: it failed (and `check`), or took longer than `timeout` seconds.
    """
    surroundings = {**os.environ, **env} if env else None
    try:
        done = subprocess.run(
            argv, input=stdin, stdin=None if stdin is not None else subprocess.DEVNULL,
            capture_output=True, timeout=limit(timeout), check=False, env=surroundings,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise CommandFailed(f"{_shown(argv)}: not done after {limit(timeout):.0f} s") from error
    except OSError as error:
        raise CommandFailed(f"{_shown(argv)}: {error.strerror}") from error
    if check and done.returncode != 0:
        raise CommandFailed(f"{_shown(argv)}: exit status {done.returncode}\n{_tail(done.stderr or done.stdout)}")
    return done.stdout.decode(errors="replace")


def docker(*argv: str, stdin: bytes | None = None, timeout: float = 600.0, check: bool = True) -> str:
    """Run a `docker` command; see `run`."""
    return run("docker", *argv, stdin=stdin, timeout=timeout, check=check)


def answers() -> str:
    """Why no Docker engine can be used here; empty if one answers."""
    if shutil.which("docker") is None:
        return "there is no docker command on PATH"
    try:
        run("docker", "version", "--format", "{{.Server.Version}}", timeout=20)
    except CommandFailed as error:
        return f"no Docker engine answers ({str(error).splitlines()[-1].strip()})"
    return ""


def image_id(image: str) -> str:
    """The ID of an image in the engine; empty if it has no image of that name."""
    return docker("image", "inspect", "--format", "{{.Id}}", image, check=False, timeout=30).strip()


def have_image(image: str) -> None:
    """Pull an image into the engine, unless it is there already.

    Raises Unavailable: it is not there and cannot be pulled.
    """
    if image_id(image):
        return
    try:
        docker("pull", "--quiet", image, timeout=900)
    except CommandFailed as error:
        reason = str(error).splitlines()[-1].strip()
        raise Unavailable(f"image {image} is not in the engine and cannot be pulled: {reason}") from error


def build(context: Path, tag: str, dockerfile: Path, labels: Mapping[str, str]) -> None:
    marks = [part for key, value in labels.items() for part in ("--label", f"{key}={value}")]
    docker("build", "--quiet", "--tag", tag, "--file", str(dockerfile), *marks, str(context), timeout=1800)


def _shown(argv: Sequence[str]) -> str:
    text = " ".join(argv)
    return text if len(text) <= 160 else text[:157] + "…"


def _tail(output: bytes, lines: int = 15) -> str:
    return "\n".join(f"    {line}" for line in output.decode(errors="replace").strip().splitlines()[-lines:])
