"""The container backend: the embedded one inside one privileged container, for macOS and for users without root.

pytest starts again in a container, with the embedded backend. The checkout is mounted read-only under its own path.
Reports are written through a mount and then belong to the user who started the run. Output and exit status are those of
the inner run.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from harness.cluster import engine
from harness.contract import Backend, Cluster, RunOptions, Unavailable
from harness.download import cache_dir
from harness.progress import Progress

ROOT = Path(__file__).resolve().parents[2]
CACHE = "/root/.cache"
#: Variables that name directories, which are mounted as well.
PLACES = ("GENIE_MIRROR", "GENIE_CNI_BIN", "KUBEBUILDER_ASSETS")
PASSED_ON = ("GENIE_API", "PYTEST_ADDOPTS", "CI")

#: The image for the embedded backend: Python with the packages of requirements.lock, and programs that plugins call.
DOCKERFILE = """\
FROM python:3.11-slim-bookworm
RUN command -v iptables >/dev/null && command -v nft >/dev/null || { apt-get update -qq \\
 && apt-get install -y -qq --no-install-recommends iptables nftables && rm -rf /var/lib/apt/lists/*; }
COPY requirements.lock .
RUN pip install --no-cache-dir --quiet --require-hashes -r requirements.lock
"""


def enter(options: RunOptions, argv: Sequence[str]) -> int:
    """Run pytest in a container; returns its exit status.

    argv: the command of this pytest, beginning with `sys.executable`.

    Raises Unavailable: there is no image to run it in.
    """
    from testcontainers.core.container import DockerContainer

    image, report = _image(Progress(console=options.console)), report_of(argv)
    report.mkdir(parents=True, exist_ok=True)
    cache_dir().mkdir(parents=True, exist_ok=True)
    container = DockerContainer(image, working_dir=str(Path.cwd()), privileged=True)
    container = container.with_command(command(argv, report))
    for place, mode in mounts(options, report):
        container = container.with_volume_mapping(place, f"{CACHE}/genie" if place == str(cache_dir()) else place, mode)
    for key, value in environment().items():
        container = container.with_env(key, value)
    with container:
        running = container.get_wrapped_container()
        for piece in running.logs(stream=True, follow=True):
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
        status: Mapping[str, Any] = running.wait()
    return int(status["StatusCode"])


def _never(options: RunOptions) -> Cluster:
    raise Unavailable("container: the cluster of this backend is the inner run's")


def command(argv: Sequence[str], report: Path) -> list[str]:
    """The container's command: pytest on the embedded backend, then chown of the report to the calling user."""
    plugin = [] if "harness.plugin" in argv else ["-p", "harness.plugin"]  # the project is not installed there
    again = ["python", *argv[1:3], *plugin, *argv[3:], "--backend", "embedded", "-p", "no:cacheprovider"]
    hand_over = f'"$@"; status=$?; chown -R {os.getuid()}:{os.getgid()} {shlex.quote(str(report))}; exit $status'
    return ["sh", "-c", hand_over, "sh", *again]


def report_of(argv: Sequence[str]) -> Path:
    """The folder for pytest's report, or the default folder for evidence."""
    given = [argument.partition("=")[2] for argument in argv if argument.startswith("--report=")]
    given += [after for argument, after in pairwise(argv) if argument == "--report"]
    return (Path.cwd() / (given[-1] if given else "report")).resolve()


def environment(surroundings: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables of the inner run."""
    wanted = {key: surroundings[key] for key in (*PLACES, *PASSED_ON) if key in surroundings}
    return {
        **wanted,
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "GENIE_WHY": "in a container",
    }


def mounts(options: RunOptions, report: Path) -> Iterator[tuple[str, str]]:
    """Host directories with their mount options, each mounted under its own path; outer directories come first."""
    read_only = {str(ROOT), str(Path.cwd()), *(str(profile.parent) for profile in options.profiles)}
    for key in PLACES:
        read_only |= {part for part in os.environ.get(key, "").split(os.pathsep) if part and Path(part).is_dir()}
    yield from ((place, "ro") for place in sorted(read_only))
    yield str(report), "rw"
    yield str(cache_dir()), "rw"


def _image(progress: Progress) -> str:
    lock = ROOT / "requirements.lock"
    if not lock.is_file():
        raise Unavailable(f"container: there is no checkout around {ROOT} to take requirements.lock from")
    digest = hashlib.sha256(DOCKERFILE.encode() + lock.read_bytes()).hexdigest()[:12]
    tag = f"genie-harness:{digest}"
    if engine.image_id(tag):
        return tag
    with progress.step("image to run the embedded cluster in"), tempfile.TemporaryDirectory() as folder:
        context = Path(folder)
        (context / "Dockerfile").write_text(DOCKERFILE)
        (context / "requirements.lock").write_bytes(lock.read_bytes())
        try:
            engine.build(context, tag, context / "Dockerfile", {"genie.harness": "runner"})
        except engine.CommandFailed as error:
            raise Unavailable(f"container: {error}") from error
    return tag


BACKEND = Backend(
    name="container", unavailable=engine.answers, inside=lambda: False, enter=enter, start=_never, connect=_never
)
