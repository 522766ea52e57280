"""Makes the matrix of released plugins from package registries: `nox -s matrix`.

Each release is built (`go install`), unpacked (Debian's package) or in the repository (the example), and tested like a
vendor's plugin. A plugin that is not available is reported, and the exit status is 3: a matrix must not lose plugins
silently. The matrix takes minutes because it tests less than a vendor's own run: few rounds and kills, and only the
newest release of each plugin with every version of the specification. Each report has that in `extent`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from harness.conformance.reports import command
from harness.conformance.spec import number
from harness.download import NotHad, cache_dir
from harness.embedded import archives, binaries
from harness.exits import Exit
from harness.report.reading import BadReport

_EXAMPLE = Path("fixtures/plugins/example_veth.py")
_CHAINED = ("tuning", "portmap", "bandwidth")
_OLDEST = (0, 8)
_NO_ROUTE: dict[str, Any] = {"type": "host-local", "ranges": [[{"subnet": "10.44.0.0/24"}]]}
_IPAM = {**_NO_ROUTE, "routes": [{"dst": "0.0.0.0/0"}]}
_OWN = {"capabilities": {"ips": True, "mac": True}}
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "bridge": {"type": "bridge", "bridge": "conf0", "isGateway": True, "ipMasq": True, **_OWN, "ipam": _IPAM},
    "ptp": {"type": "ptp", "ipMasq": True, "capabilities": {"ips": True}, "ipam": _IPAM},
    "macvlan": {"type": "macvlan", "master": "eth0", **_OWN, "ipam": _NO_ROUTE},
    "ipvlan": {"type": "ipvlan", "master": "eth0", "capabilities": {"ips": True}, "ipam": _NO_ROUTE},
    "example-veth": {"type": "example-veth", "subnet": "10.44.0.0/24"},
}
_REFERENCE = ("bridge", "ptp", "macvlan")
_INSTALLED = "/opt/cni/bin"  # where plugins are on a node; reports name this place, not that of whoever made them


@dataclass(frozen=True, kw_only=True)
class Release:
    """One plugin in one release."""

    plugin: str
    version: str
    get: Callable[[], Path]  # the directory with the plugin and other plugins
    newest: bool = True

    @property
    def name(self) -> str:
        return f"{self.plugin}-{self.version}"


def newest_of_minors(versions: Iterable[str]) -> list[str]:
    """The newest release of each minor version since 0.8, oldest first; without release candidates."""
    newest: dict[tuple[int, ...], tuple[int, ...]] = {}
    for version in versions:
        try:
            found = number(version.removeprefix("v"))
        except ValueError:
            continue
        if found[:2] >= _OLDEST:
            newest[found[:2]] = max(found, newest.get(found[:2], found))
    return [f"v{'.'.join(map(str, found))}" for _, found in sorted(newest.items())]


def releases(lacking: list[str]) -> Iterator[Release]:
    """All releases from registries and the repository; for others, `lacking` gets the reason."""
    module, debian = (archives.pin("cni-plugins").more[key] for key in ("go", "debian"))
    try:
        versions = newest_of_minors(_versions(module.removesuffix("/plugins")))
        for version in versions:
            for plugin in _REFERENCE:
                get = _builder(module, version, plugin)
                yield Release(plugin=plugin, version=version, get=get, newest=version == versions[-1])
    except (NotHad, subprocess.SubprocessError) as error:
        lacking.append(f"reference plugins by go install: {error}")
    for plugin in _REFERENCE:
        yield Release(plugin=plugin, version="debian", get=lambda: binaries.debian(debian), newest=False)
    if _EXAMPLE.is_file():
        yield Release(plugin="example-veth", version="main", get=_example)


def _versions(module: str) -> list[str]:
    if not shutil.which("go"):
        raise NotHad("no go here")
    with TemporaryDirectory() as empty:
        done = subprocess.run(
            ["go", "list", "-m", "-versions", module],
            cwd=empty,
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
    return done.stdout.split()[1:]


def _builder(module: str, version: str, plugin: str) -> Callable[[], Path]:
    return lambda: binaries.built(module, version, {plugin, "host-local"})


def configuration(release: Release) -> dict[str, Any]:
    """The release's configuration; releases older than the capabilities must not declare them."""
    declared = CONFIGURATIONS[release.plugin]
    return {key: value for key, value in declared.items() if key != "capabilities" or release.version[:3] != "v0."}


def _chained() -> Path:
    """A directory with chained plugins in the newest release, because faults in their old releases are not the
    plugin's."""
    pinned = archives.pin("cni-plugins")
    place = cache_dir() / "programs" / f"chained-{pinned.version}"
    place.mkdir(parents=True, exist_ok=True)
    for name in _CHAINED:
        if not (place / name).exists():
            shutil.copy(binaries.built(pinned.more["go"], pinned.version, set(_CHAINED)) / name, place / name)
    return place


def _example() -> Path:
    """A directory with the example under the name of its type."""
    place = cache_dir() / "programs" / "example"
    place.mkdir(parents=True, exist_ok=True)
    shutil.copy(_EXAMPLE, place / "example-veth")
    (place / "example-veth").chmod(0o755)
    return place


def test(release: Release, out: Path, options: Sequence[str]) -> str:
    """Test one release and write its report; returns why this failed, or an empty string."""
    try:
        directory, chained = release.get(), _chained() if shutil.which("go") else None
    except (NotHad, OSError, subprocess.SubprocessError) as error:
        return f"{release.name}: {getattr(error, 'stderr', '') or error}".strip()
    report = out / f"{release.name}.json"
    version = "0.4.0" if release.version.startswith("v0.") else "1.0.0"  # what it supports
    network = {"cniVersion": version, "name": "conformance", "plugins": [configuration(release)]}
    with TemporaryDirectory() as place:
        conf = Path(place) / "10-conformance.conflist"
        conf.write_text(json.dumps(network), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", "harness", "conformance", "--plugin", directory / release.plugin, "--conf", conf,
             *(["--path", str(chained)] if chained else []), "--path", directory, "--release", release.version,
             "--report", report, *([] if release.newest else ["--versions", "newest"]), *options],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    if done.returncode in (0, 1):
        _make_public(report, {str(conf.parent): "/etc/cni/net.d", str(directory): _INSTALLED, str(chained): _INSTALLED})
        print(f"{release.name}: {_summary(report)}", flush=True)
        return ""
    report.unlink(missing_ok=True)
    return f"{release.name}: {(done.stderr or done.stdout).strip()}"


def _make_public(report: Path, places: Mapping[str, str]) -> None:
    """Take the places of this machine out of a report: its scripts run where the plugins are on a node."""
    text = report.read_text(encoding="utf-8")
    for place, public in places.items():
        text = text.replace(place, public)
    content = json.loads(text)
    report.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _summary(report: Path) -> str:
    summary = json.loads(report.read_text(encoding="utf-8"))["summary"]
    return ", ".join(f"{count} {verdict}" for verdict, count in summary.items() if count)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0 also with findings; 3 if a plugin is not available or cannot be tested, 4 if no name matches."""
    try:
        options = _options(argv)
    except SystemExit as ended:  # argparse has its own code
        return Exit.USAGE if ended.code else Exit.PASSED
    lacking: list[str] = []
    every = list(releases(lacking))
    chosen = [each for each in every if not options.only or each.name.startswith(tuple(options.only))]
    if options.list:
        print("\n".join(each.name for each in chosen))
    elif chosen:
        options.out.mkdir(parents=True, exist_ok=True)
        for each in chosen:  # one after the other, before parallel tests need the same file
            with suppress(NotHad, OSError, subprocess.SubprocessError):  # reported when it is tested
                each.get()
                _chained()
        with ThreadPoolExecutor(options.jobs) as pool:
            more = ["--rounds", str(options.rounds), "--kills", str(options.kills), "--jobs", "1"]
            found = pool.map(lambda each: test(each, options.out, more), chosen)
            lacking += filter(None, found)
        _page(options.out)
    else:
        lacking.append(f"nothing begins with {' or '.join(options.only)}; there are {', '.join(e.name for e in every)}")
    for line in lacking:
        print(f"NOT TESTED: {line}", file=sys.stderr)
    return Exit.PASSED if not lacking else Exit.BROKEN if chosen else Exit.USAGE


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="nox -s matrix --", description=__doc__)
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME",
        help="only plugins with names that begin with this: bridge, ptp-v1.9.1",
    )
    parser.add_argument("--list", action="store_true", help="list the plugins and end")
    parser.add_argument("--out", type=Path, default=Path("reports"), help="default: %(default)s")
    parser.add_argument(
        "--rounds", type=int, default=5, help="rounds of ADD and DEL for each plugin; default: %(default)s"
    )
    parser.add_argument("--kills", type=int, default=8, help="system calls at which a call is killed, at most")
    parser.add_argument("--jobs", type=int, default=2, help="plugins to test at once; default: %(default)s")
    return parser.parse_args(argv)


def _page(out: Path) -> None:
    """Make the page of all reports in the directory, including those that others added."""
    if reports := sorted(path for path in out.glob("*.json") if path.name != "matrix.json"):
        try:
            command.merge(argparse.Namespace(reports=reports, out=out))
        except BadReport as error:
            print(error, file=sys.stderr)


if __name__ == "__main__":
    raise SystemExit(main())
