"""Programs from the pinned archives: downloaded from a server or the mirror, checked, unpacked, run.

The tests make the archives from programs of this machine, with the layout of the real ones.
"""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import json
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from harness.backends.embedded import CORE
from harness.download import NotHad
from harness.embedded import archives, binaries

ROOT = Path(__file__).parents[3]
PLUGINS_LAYOUT, ENVTEST_LAYOUT = "./", "controller-tools/envtest/"


class Handler(http.server.SimpleHTTPRequestHandler):
    """Counts requests, without a log."""

    asked: list[str]

    def log_message(self, *_: object) -> None:
        self.asked.append(self.path)


class Site:
    """A server of files, and pins for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str] = []
        handler = type("Asked", (Handler,), {"asked": self.asked})
        self._server = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), functools.partial(handler, directory=str(folder))
        )
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def pin(self, name: str, checksum: str = "") -> archives.Pin:
        """The pinned entry of a name, with a URL of this server."""
        pinned = archives.pin(name)
        file = pinned.url.rpartition("/")[2]
        url = f"http://127.0.0.1:{self._server.server_address[1]}/{file}"
        digest = hashlib.sha512((self.folder / file).read_bytes()).hexdigest()
        return replace(pinned, url=url, checksum=checksum or f"sha512:{digest}")

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    (tmp_path / "site").mkdir()
    one = Site(tmp_path / "site")
    yield one
    one.close()


def _none(*_: object) -> Path:
    raise NotHad("not in this test")


def pack(path: Path, programs: Mapping[str, Path], layout: str, *, text: str = "README.md") -> None:
    """An archive with these programs in a folder, and a text file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz", compresslevel=1) as file:
        file.add(Path(__file__), f"{layout}{text}", filter=lambda entry: entry.replace(mode=0o644, deep=False))
        for name, program in programs.items():
            file.add(program.resolve(), f"{layout}{name}")


def script(path: Path, output: str = "CNI bridge plugin v1.9.1") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{output}'\n")
    path.chmod(0o755)
    return path


def archive_of_plugins(site: Site, tmp_path: Path) -> None:
    programs = {name: script(tmp_path / "made" / name) for name in CORE}
    pack(site.folder / archives.pin("cni-plugins").url.rpartition("/")[2], programs, PLUGINS_LAYOUT)


def serve(monkeypatch: pytest.MonkeyPatch, pinned: archives.Pin) -> None:
    monkeypatch.setattr(archives, "pin", lambda name: pinned)


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with none of the programs, and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    for name in ("GENIE_MIRROR", "KUBEBUILDER_ASSETS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(binaries, "INSTALLED", ())
    monkeypatch.setattr(binaries, "debian", _none)
    monkeypatch.setattr(binaries, "built", _none)


def test_the_mirror_comes_first_and_is_unpacked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned = _pin("0" * 64)
    _archive(tmp_path / "mirror" / "example.com" / "a.tgz")
    monkeypatch.setenv("GENIE_MIRROR", str(tmp_path / "mirror"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    place = archives.programs(pinned)
    assert (place / "bridge").read_text() == "#!"
    assert archives.programs(pinned) == place


def test_a_cached_archive_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _archive(tmp_path / "a.tgz")
    digest = hashlib.sha256((tmp_path / "a.tgz").read_bytes()).hexdigest()
    cached = tmp_path / "cache" / "genie" / "sha256" / digest
    cached.parent.mkdir(parents=True)
    (tmp_path / "a.tgz").rename(cached)
    monkeypatch.delenv("GENIE_MIRROR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert (archives.programs(_pin(digest)) / "bridge").exists()


def test_pins_are_whole() -> None:
    for name in ("cni-plugins", "envtest"):
        pinned = archives.pin(name)
        assert pinned.url.startswith("https://")
        assert "{" not in pinned.url


def _pin(digest: str) -> archives.Pin:
    return archives.Pin(name="a", version="v1", url="https://example.com/a.tgz", checksum=f"sha256:{digest}", more={})


def _archive(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as file:
        for name, mode in (("bin/bridge", 0o755), ("README", 0o644)):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = 2, mode
            file.addfile(entry, io.BytesIO(b"#!"))


@pytest.mark.usefixtures("bare")
def test_plugins_are_fetched_once_checked_and_run(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive_of_plugins(site, tmp_path)
    serve(monkeypatch, site.pin("cni-plugins"))
    for _ in range(2):
        found = binaries.plugins([], CORE, CORE)
        assert sorted(Path(path).name for path in found.paths) == sorted(CORE)
        assert found.source == "containernetworking/plugins v1.9.1, release archive v1.9.1"
        assert subprocess.check_output([found.paths[0]], text=True) == "CNI bridge plugin v1.9.1\n"
    assert len(site.asked) == 1


@pytest.mark.usefixtures("bare")
def test_another_content_than_the_pinned_is_one_error_and_not_kept(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive_of_plugins(site, tmp_path)
    pinned = site.pin("cni-plugins", "sha256:" + "0" * 64)
    digest = hashlib.sha256((site.folder / pinned.url.rpartition("/")[2]).read_bytes()).hexdigest()
    serve(monkeypatch, pinned)
    for again in (False, True):
        with pytest.raises(binaries.NotFound) as caught:
            binaries.plugins([], CORE, CORE)
        [line] = [line for line in str(caught.value).splitlines() if "release archive" in line]
        assert f"{pinned.url}: its sha256 is {digest}, expected {'0' * 64}" in line
        assert ("remembered for an hour" in line) == again
    kept = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert [path.parent.name for path in kept] == ["failed"]
    assert len(site.asked) == 1


@pytest.mark.usefixtures("bare")
def test_what_is_not_there_is_told_with_the_servers_answer(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive_of_plugins(site, tmp_path)
    pinned = site.pin("cni-plugins")
    (site.folder / pinned.url.rpartition("/")[2]).unlink()
    serve(monkeypatch, pinned)
    with pytest.raises(binaries.NotFound, match=f"{pinned.url}: .*404"):
        binaries.plugins([], CORE, CORE)


@pytest.mark.usefixtures("bare")
def test_a_mirrors_file_that_is_no_archive_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = urlsplit(archives.pin("cni-plugins").url)
    file = tmp_path / "mirror" / url.netloc / url.path.lstrip("/")
    file.parent.mkdir(parents=True)
    monkeypatch.setenv("GENIE_MIRROR", str(tmp_path / "mirror"))
    pack(tmp_path / "whole.tgz", {"bridge": script(tmp_path / "bridge")}, PLUGINS_LAYOUT)
    truncated = (tmp_path / "whole.tgz").read_bytes()[:-200]
    for content, reason in (
        (b"<html>please sign in</html>", "not a gzip file"),
        (truncated, "Compressed file ended"),
    ):
        file.write_bytes(content)
        with pytest.raises(binaries.NotFound, match=f"{file}: cannot be unpacked: {reason}"):
            binaries.plugins([], CORE, CORE)
    assert not (tmp_path / "cache" / "genie" / "programs").exists() or not list(
        (tmp_path / "cache" / "genie" / "programs").iterdir()
    )


@pytest.mark.usefixtures("bare")
def test_the_api_server_is_fetched_as_envtest_packs_it(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = {name: script(tmp_path / "made" / name, "Kubernetes v1.35.0") for name in ("kube-apiserver", "etcd")}
    pack(site.folder / archives.pin("envtest").url.rpartition("/")[2], programs, ENVTEST_LAYOUT)
    serve(monkeypatch, site.pin("envtest"))
    server, why = binaries.api_server("")
    assert (server.real, server.version, why) == (True, "v1.35.0", "envtest's archive v1.35.0")
    assert Path(server.kube_apiserver).parent == Path(server.etcd).parent


@pytest.mark.usefixtures("bare")
def test_without_the_archive_it_is_the_emulator_with_the_reason(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(site.folder / archives.pin("envtest").url.rpartition("/")[2], {}, ENVTEST_LAYOUT)
    pinned = site.pin("envtest", "sha512:" + "0" * 128)
    serve(monkeypatch, pinned)
    server, why = binaries.api_server("")
    assert not server.real
    assert f"envtest's archive: {pinned.url}: its sha512 is" in why
    with pytest.raises(binaries.NotFound, match="its sha512 is"):
        binaries.api_server("kube-apiserver")


@pytest.mark.root
@pytest.mark.usefixtures("isolated")
def test_a_run_with_all_of_it_out_of_the_mirror(tmp_path: Path, cni_bin: str) -> None:
    """A complete run with the real programs, on a machine that has only these."""
    server, why = binaries.api_server("")
    if not server.real:
        pytest.skip(why)
    if binaries.look(CORE, binaries.INSTALLED):
        pytest.skip("this machine has plugins installed, which come first")
    mirror = tmp_path / "mirror"
    for name, programs, layout in (
        ("cni-plugins", {path.name: path for path in Path(cni_bin).iterdir()}, PLUGINS_LAYOUT),
        ("envtest", {"kube-apiserver": Path(server.kube_apiserver), "etcd": Path(server.etcd)}, ENVTEST_LAYOUT),
    ):
        url = urlsplit(archives.pin(name).url)
        pack(mirror / url.netloc / url.path.lstrip("/"), programs, layout)
    env = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "GENIE_MIRROR": str(mirror),
    }
    command = [
        sys.executable,
        "-m",
        "pytest",
        "scenarios/bridge.yaml",
        "--backend",
        "embedded",
        "--report",
        str(tmp_path),
    ]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider"],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        env=env,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    notes = json.loads((tmp_path / "report.json").read_text())["cluster"]["notes"]
    assert any(note.startswith("plugins: ") and "release archive v" in note for note in notes)
    assert any(note.startswith("API server: envtest's archive v") for note in notes)
