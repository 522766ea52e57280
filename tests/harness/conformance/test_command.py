"""`harness conformance` as a vendor calls it: on reference plugins, in namespaces."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.conformance import published
from harness.conformance.checks import CHECKS
from harness.conformance.profile.check import of_files
from harness.report.reading import BadReport

BRIDGE = {
    "cniVersion": "1.0.0",
    "name": "mine",
    "type": "bridge",
    "bridge": "mine0",
    "isGateway": True,
    "ipam": {"type": "host-local", "subnet": "10.91.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]},
}


def conformance(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "harness", "conformance", *map(str, words)], capture_output=True, text=True, check=False
    )


def report_of(
    tmp_path: Path, conf: dict[str, Any], plugin: Path, *words: str
) -> tuple[int, published.ConformanceReport]:
    file, report = tmp_path / "10-mine.conf", tmp_path / "report.json"
    file.write_text(json.dumps(conf))
    done = conformance("--plugin", plugin, "--conf", file, "--report", report, "--versions", "0.4.0,1.0.0", *words)
    assert f"harness report merge {report} --out page" in done.stdout, done.stderr
    assert report.exists(), done.stderr
    return done.returncode, published.read(report)


def test_checks_have_names_of_their_own_and_build_on_others_that_exist() -> None:
    names = [check.name for check in CHECKS]
    assert len(set(names)) == len(names)
    assert {name for check in CHECKS for name in check.after} <= set(names)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "expected a profile, or --plugin and --conf"),
        (["--plugin", "/nonexistent", "--conf", "/nonexistent"], "/nonexistent: expected a plugin's executable"),
        (["--plugin", sys.executable, "--conf", "/nonexistent"], "/nonexistent: expected a CNI configuration"),
        (["/nonexistent.yaml"], "/nonexistent.yaml"),
        (["--report", "/nonexistent/report.json"], "--report: expected a directory, /nonexistent is none"),
    ],
)
def test_nothing_to_test_is_no_success(words: list[str], message: str) -> None:
    done = conformance(*words)
    assert done.returncode == 4
    assert message in done.stderr


def test_the_schema_is_a_schema_and_a_report_that_lacks_a_part_is_refused(tmp_path: Path) -> None:
    assert json.loads(conformance("--schema").stdout)["title"] == "ConformanceReport"
    (tmp_path / "bad.json").write_text('{"kind": "ConformanceReport"}')
    with pytest.raises(BadReport, match="implementation"):
        published.read(tmp_path / "bad.json")


@pytest.mark.root
def test_a_right_plugin_passes_and_its_report_names_what_ran(tmp_path: Path, cni_bin: str) -> None:
    only = ("--only", "add-succeeds", "--only", "result-address", "--only", "del-leaves", "--only", "del-after-reboot")
    status, report = report_of(tmp_path, BRIDGE, Path(cni_bin) / "bridge", *only)
    assert {check.name: check.verdict.value for check in report.checks if check.verdict.value != "passed"} == {}
    assert status == 0
    assert {binary.type for binary in report.implementation.binaries} == {"bridge", "host-local"}
    assert "0.4.0" in report.implementation.supportedVersions


@pytest.mark.root
def test_a_plugin_that_lies_about_an_address_is_found_with_a_script_that_shows_it(tmp_path: Path, cni_bin: str) -> None:
    liar = tmp_path / "bridge"
    liar.write_text(f'#!/bin/sh\n"{cni_bin}/bridge" | sed "s#10[.]91[.]0[.]2/24#10.91.0.9/24#"\n')
    liar.chmod(0o755)
    status, report = report_of(tmp_path, BRIDGE, liar, "--only", "result-address-true", "--path", cni_bin)
    [check] = report.checks
    assert status == 1
    [finding] = check.findings
    assert finding.fault.value == "plugin"
    assert "the result has 10.91.0.9/24 on eth0; the kernel has 10.91.0.2/24" in finding.headline
    script = tmp_path / "script.sh"
    script.write_text(finding.reproducer)
    shown = subprocess.run(["sh", str(script)], capture_output=True, text=True, env=os.environ, check=False).stdout
    assert "10.91.0.9/24" in shown
    assert "inet 10.91.0.2/24" in shown


@pytest.mark.root
def test_an_address_that_stays_is_the_plugins_fault_if_it_asks_no_ipam_plugin(tmp_path: Path, cni_bin: str) -> None:
    leaking = tmp_path / "bridge"
    leaking.write_text(
        f'#!/bin/sh\n[ "$CNI_COMMAND" != DEL ] || exec ip netns exec "${{CNI_NETNS##*/}}" ip link del "$CNI_IFNAME"\n'
        f'exec "{cni_bin}/bridge"\n'
    )
    leaking.chmod(0o755)
    status, report = report_of(tmp_path, BRIDGE, leaking, "--only", "del-leaves-nothing", "--path", cni_bin)
    [check] = report.checks
    assert status == 1
    assert {finding.fault.value for finding in check.findings} == {"plugin"}
    assert "/var/lib/cni/networks/mine/10.91.0.3" in check.findings[0].headline


def test_what_is_chained_comes_from_the_directory_that_was_named_before_that_of_the_plugin(tmp_path: Path) -> None:
    for name in ("named/tuning", "own/tuning", "own/bridge", "own/host-local"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "10-mine.conf").write_text(json.dumps(BRIDGE))
    found = of_files(tmp_path / "own/bridge", tmp_path / "10-mine.conf", [tmp_path / "named"])
    assert found.beside("tuning") == tmp_path / "named/tuning"
    assert found.binaries["host-local"] == tmp_path / "own/host-local"
