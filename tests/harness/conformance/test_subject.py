"""The subject of a test, from a configuration: which plugin is tested, and which checks are for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.__main__ import main
from harness.conformance.checks import CHECKS
from harness.conformance.run import Plan, versions_of
from harness.conformance.subject import Subject, Unusable, of
from harness.download import FIXTURES

IPAM = {"type": "addresses", "subnet": "10.88.0.0/24"}
Made = Callable[..., Subject]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Makes a subject; `binary` is the tested plugin, others are beside it."""
    for name in ("links", "addresses", "later", "dhcp", "host-device", "flannel", "bridge", "host-local"):
        binary = tmp_path / name
        binary.write_text('#!/bin/sh\necho \'{"cniVersion": "1.0.0", "supportedVersions": ["1.0.0", "1.1.0"]}\'\n')
        binary.chmod(0o755)

    def make(binary: str, *plugins: dict[str, Any], **more: Any) -> Subject:
        network = {"cniVersion": "1.0.0", "name": "net", "plugins": list(plugins), **more}
        return of(network, "conf", tmp_path / binary)

    return make


def checks(subject: Subject) -> set[str]:
    return {check.name for check in CHECKS if versions_of(check, subject)}


@pytest.mark.parametrize("upper", ["links", "addresses"])
def test_an_ipam_plugin_is_tested_alone_whatever_calls_it(made: Made, upper: str) -> None:
    subject = made("addresses", {"type": upper, "ipam": IPAM, "dns": {"domain": "x"}, "capabilities": {"mac": True}})
    assert (subject.type, subject.binary.name, subject.ipam, subject.assigns) == ("addresses", "addresses", "", True)
    found = checks(subject)
    assert found >= {"add-succeeds", "del-keeps-others", "gc-by-interface", "check-finds-reservation", "pool-full"}
    assert not found & {"add-makes-interface", "result-routes-true", "chain-tuning", "result-dns", "capability-mac"}


def test_the_plugin_that_makes_the_interface_needs_its_ipam_plugin(made: Made) -> None:
    subject = made("links", {"type": "links", "ipam": IPAM})
    assert (subject.type, subject.ipam, subject.assigns) == ("links", "addresses", False)
    assert checks(subject) >= {"add-makes-interface", "result-routes-true", "chain-tuning", "gc-asks-ipam"}


def test_a_plugin_with_a_daemon_and_a_server_cannot_be_tested_alone(made: Made) -> None:
    for binary, part in (("links", {"type": "links", "ipam": {"type": "dhcp"}}), ("dhcp", {"type": "dhcp"})):
        with pytest.raises(Unusable, match="conf: dhcp needs its daemon"):
            made(binary, part)


def test_a_device_is_in_one_container_at_a_time(made: Made) -> None:
    subject = made("host-device", {"type": "host-device", "device": "eth7", "ipam": IPAM})
    found = checks(subject)
    assert "add-again" in found
    assert not found & {"concurrent-add", "del-keeps-others", "pool-full", "container-ids", "gc-collects-stale"}
    plan = Plan(replace(subject, supported=("1.1.0",)), CHECKS, again=0)
    assert all(len(job.checks) == 1 for job in plan.ready())  # what one check leaves there another does not find


def test_what_a_daemon_has_written_is_there(made: Made) -> None:
    subject = made("flannel", {"type": "flannel", "subnetFile": "/run/x/subnet.env"})
    assert "FLANNEL_SUBNET=" in subject.files["/run/x/subnet.env"]
    assert set(subject.binaries) == {"flannel", "bridge", "host-local"}
    assert made("links", {"type": "links"}).files == {}


@pytest.mark.parametrize(("key", "prefix"), [("disableCheck", "check-"), ("disableGC", "gc-")])
def test_a_verb_that_no_runtime_calls_is_not_tested(made: Made, key: str, prefix: str) -> None:
    part = {"type": "links", "ipam": IPAM}
    assert any(name.startswith(prefix) for name in checks(made("links", part)))
    assert not any(name.startswith(prefix) for name in checks(made("links", part, **{key: True})))


def test_a_named_directory_that_is_not_there_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GENIE_CNI_BIN", "/nowhere")
    conf = tmp_path / "a.conf"
    conf.write_text('{"cniVersion": "1.0.0", "name": "a", "type": "true"}')
    for command in (
        ["conformance", "--plugin", "/bin/true", "--conf", str(conf)],
        ["profile", "check", str(FIXTURES / "networks" / "bridge.yaml")],
    ):
        assert main(command) == 4
        captured = capsys.readouterr()
        assert "$GENIE_CNI_BIN: /nowhere: no such directory\n" in captured.out + captured.err
