"""A shim, compiled once for all workers, and a place for its socket."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from genie.agent import shim
from tests.rigs.fake_api import FakeApi


@pytest.fixture(scope="session")
def shim_binary() -> Path:
    """The shim for this machine."""
    try:
        return shim.binary()
    except shim.BuildError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def binary(shim_binary: Path) -> Path:
    """The shim that tests run by default."""
    return shim_binary


@pytest.fixture(scope="session")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shim for aarch64, run by QEMU. A script with the emulator as its interpreter: PID, environment and arguments
    are the shim's own (but for a last argument, at which it does not look).
    """
    if shim.host() == "aarch64":
        pytest.skip("the shim for aarch64: it is this machine's own, and tested as such")
    emulator = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
    if not emulator:
        pytest.skip("the shim for aarch64: no qemu-aarch64-static or qemu-aarch64 on PATH (Debian: qemu-user-static)")
    try:
        made = shim.binary("aarch64")
    except shim.BuildError as error:
        pytest.skip(f"the shim for aarch64: {error}")
    script = tmp_path_factory.mktemp("aarch64") / "shim"
    script.write_text(f"#!{emulator} {made}\n")
    script.chmod(0o755)
    return script


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory with a short path: a socket's path can have 107 bytes, and pytest's directories are long."""
    with tempfile.TemporaryDirectory(prefix="genie-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shim with gcc's address and undefined-behaviour sanitizers."""
    if not (gcc := shutil.which("gcc")):
        pytest.skip("the sanitizers: there is no gcc")
    made = tmp_path_factory.mktemp("shim") / "shim"
    flags = [
        "-std=gnu11",
        "-O1",
        "-g",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=all",
    ]
    done = subprocess.run([gcc, *flags, "-o", made, shim.SOURCE], capture_output=True, text=True, check=False)
    if "cannot find" in done.stderr:
        pytest.skip(f"the sanitizers: gcc has no libraries for them: {done.stderr[-200:]}")
    assert done.returncode == 0, done.stderr
    return made


@pytest.fixture(params=["release", "sanitized"])
def either(request: pytest.FixtureRequest) -> Path:
    """The normal shim, and the shim with sanitizers."""
    path: Path = request.getfixturevalue("binary" if request.param == "release" else "sanitized")
    return path


@pytest.fixture
def api() -> Iterator[FakeApi]:
    """A running API server."""
    fake = FakeApi()
    yield fake
    fake.down()
