"""The pytest plugin with its command line, on a cluster in memory."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from hashlib import sha256
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml  # noqa: F401  # for good: pytester forgets what a run in this process imports, and this cannot be twice

from tests.rigs.folder import SCENARIO, Folder

pytest_plugins = ["pytester"]
ROOT = Path(__file__).parents[2]


def test_a_run_says_where_what_and_how_it_went(folder: Folder) -> None:
    result = folder.run("scenarios")
    result.assert_outcomes(passed=2, skipped=1)
    result.stdout.fnmatch_lines(
        [
            "backend: fake (asked for)",
            "an API server in memory; genie: direct mode, imagined",
            "cluster ready in * s, nodes one, two",
            " ✓ calico * s  calico",
            " - canal * canal * canal is missing: its image cannot be had",
            " ✓ weave * s  weave",
            " calico * 1 * a stand-in: calico of the fake*",
            " canal * missing: its image cannot be had*",
            " weave * 1 * real: weave of the fake*",
            "cluster start * s, all * s; slowest: *",
        ]
    )
    result.stderr.fnmatch_lines(["started for calico,canal,weave"])


def test_a_failure_shows_values_and_where_to_look(folder: Folder) -> None:
    result = folder.run("scenarios", "-k", "weave", faults=("unreachable",))
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            " ✗ weave * reach from: a, to: b, over: weave: icmp from a to b at 10.2.0.12: no answer within 2 s",
            "*weave: A pod on weave*",
            "✗ reach from: a, to: b, over: weave",
            "    icmp from a to b at 10.2.0.12: no answer within 2 s",
            "    a has:",
            "      eth0 up, 10.2.0.11/16 (weave)",
            "look at next:",
            "    report/evidence/weave/*",
            "FAILED scenarios/weave.yaml::weave*",
        ]
    )
    assert (folder.path / "report/evidence/weave/a/genie.log").exists()


@pytest.mark.parametrize(
    ("args", "names"),
    [
        (["-k", "cal"], ["calico"]),
        (["-m", "weave-only"], ["weave"]),
        (["-m", "calico or weave"], ["calico", "weave"]),
        (["--networks", "weave"], ["weave"]),
        (["--networks", "weave, calico"], ["calico", "weave"]),
    ],
)
def test_choosing(folder: Folder, args: list[str], names: list[str]) -> None:
    result = folder.run("scenarios", "--collect-only", "-q", *args)
    found = [line.rpartition("::")[2] for line in result.outlines if "::" in line]
    assert found == names


def test_a_vendor_puts_a_network_in_place_of_ours(folder: Folder) -> None:
    """--swap: only the scenarios of that network, under the other's name, checked as the other's."""
    result = folder.run("scenarios", "--swap", "weave=calico")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines([" ✓ calico * s  calico", "* 1 passed *"])
    assert "started for calico" in str(result.stderr)


UNDER_TEST = """\
scenario: A pod on network-under-test and {other}
networks: [network-under-test, {other}]
pods: {{a: {{annotations: {{cni: "network-under-test,{other}"}}}}}}
expect: [{{interfaces: {{pod: a, eth0: network-under-test, eth1: {other}}}}}]
"""


def test_scenarios_of_the_network_under_test_are_for_its_swap_alone(folder: Folder) -> None:
    (folder.scenarios / "beside-other-network.yaml").write_text(UNDER_TEST.format(other="other-network"))
    (folder.scenarios / "beside-weave.yaml").write_text(UNDER_TEST.format(other="weave"))

    def found(*words: str) -> set[str]:
        lines = folder.run("scenarios", "--collect-only", "-q", *words).outlines
        return {line.rpartition("::")[2] for line in lines if "::" in line}

    assert found() == {"calico", "canal", "weave"}
    assert found("--swap", "weave=calico") == {"calico"}
    others = {f"beside-{name}" for name in ("bridge", "canal", "flannel", "macvlan", "ptp", "weave")}
    assert found("--swap", "network-under-test=calico") == others
    assert "beside-weave" in found("--swap", "network-under-test=mynet")


def test_a_swap_that_is_none_is_refused(folder: Folder) -> None:
    result = folder.run("scenarios", "--swap", "weave")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--swap: expected OLD=NEW, two networks' names, got 'weave'*"])


def test_collecting_needs_no_cluster(folder: Folder) -> None:
    result = folder.run("scenarios", "--collect-only", "-q")
    assert "started" not in result.stderr.str()
    assert "backend" not in result.stdout.str()


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["alone", "xdist"])
@pytest.mark.parametrize("choice", [["-k", "weave"], ["-m", "weave-only"], ["--networks", "weave"]], ids=" ".join)
def test_only_what_is_wanted_is_started(folder: Folder, choice: list[str], workers: list[str]) -> None:
    result = folder.run("scenarios", *choice, *workers)
    result.stderr.fnmatch_lines(["started for weave"])
    result.assert_outcomes(passed=1, deselected=2)


def test_nothing_is_started_for_nothing(folder: Folder) -> None:
    assert "started for" not in folder.run("scenarios", "-k", "nothing", "-n", "2").stderr.str()


def test_reports(folder: Folder) -> None:
    result = folder.run("scenarios", "--report", "out", faults=("two-defaults",))
    result.stdout.fnmatch_lines(["report: *out/index.html"])
    output = json.loads((folder.path / "out/report.json").read_text())
    assert [each["verdict"] for each in output["scenarios"]] == ["passed", "skipped", "passed"]
    assert output["command"][0] == "pytest"
    assert output["command"][-3:] == ["scenarios", "--report", "out"]
    assert output["suite"]["names"] == ["calico", "canal", "weave"]
    assert [(each["name"], each["nodes"]) for each in output["binaries"]] == [
        ("bridge", ["one", "two"]),
        *[("ptp", [node]) for node in sorted(("one", "two"), key=lambda node: sha256(node.encode()).hexdigest())],
    ]
    page = (folder.path / "out/index.html").read_text()
    assert "calico of the fake" in page
    assert "stand-in" in page
    assert 'classname="scenarios.weave' in (folder.path / "out/junit.xml").read_text()


@pytest.mark.parametrize("workers", [(), ("-n", "2")])
def test_a_report_names_the_selected_scenarios_alone(workers: tuple[str, ...], folder: Folder) -> None:
    folder.run("scenarios", "-k", "not canal", "--networks", "weave,canal", "--report", "out", *workers)
    assert json.loads((folder.path / "out/report.json").read_text())["suite"]["names"] == ["weave"]


def test_each_scenario_is_in_one_of_the_shards(folder: Folder) -> None:
    (folder.path / "durations.json").write_text('{"calico": 9, "weave": 5, "canal": 5}')
    reports = []
    for shard, workers in (("1/2", ()), ("2/2", ("-n", "2"))):
        folder.run("scenarios", "--shard", shard, "--durations-from", "durations.json", "--report", "out", *workers)
        reports.append(json.loads((folder.path / "out/report.json").read_text()))
    assert [[each["name"] for each in report["scenarios"]] for report in reports] == [["calico"], ["canal", "weave"]]
    assert [report["shard"] for report in reports] == ["1/2", "2/2"]
    assert reports[0]["suite"] == reports[1]["suite"]


def test_a_known_failure_is_shown_everywhere_and_decides_nothing_until_it_passes_or_is_over(folder: Folder) -> None:
    known = folder.path / "known.yaml"
    args = ("scenarios", "-k", "weave", "--known-failures", "known.yaml", "--report", "out")
    entry = "known-failures: [{{scenario: weave, owner: ann, reason: issue 7, expires: {}}}]"
    for day, faults, code, tag in (
        ("2999-12-31", ("unreachable",), 0, "skipped"),
        ("2999-12-31", (), 1, "failure"),
        ("2001-12-31", ("unreachable",), 1, "failure"),
    ):
        known.write_text(entry.format(day))
        result = folder.run(*args, faults=faults)
        assert result.ret == code
        result.stdout.fnmatch_lines(["* weave * known failure of ann until *: issue 7*"])
        assert f"<{tag} " in (folder.path / "out/junit.xml").read_text()
        assert json.loads((folder.path / "out/report.json").read_text())["exit"]["code"] == code
    known.write_text("known-failures: [{scenario: weave}]")
    result = folder.run(*args)
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*known.yaml:1:18: known-failures?0?.expires: is missing"])


def test_a_shard_that_is_none_and_durations_that_are_not_there_are_refused(folder: Folder) -> None:
    result = folder.run("scenarios", "--shard", "3/2")
    result.stderr.fnmatch_lines(["*--shard: expected I/N, the part I of N*got '3/2'*"])
    result = folder.run("scenarios", "--shard", "1/2", "--durations-from", "no.json")
    result.stderr.fnmatch_lines(["*--durations-from */no.json: expected a report in JSON or YAML: *"])


def test_xdist(folder: Folder) -> None:
    result = folder.run("scenarios", "-n", "2", "--report", "out")
    result.assert_outcomes(passed=2, skipped=1)
    result.stdout.fnmatch_lines_random([" ✓ calico *", " ✓ weave *", " - canal *"])
    assert result.stderr.str().count("started for") == 1
    output = json.loads((folder.path / "out/report.json").read_text())
    assert output["suite"]["names"] == ["calico", "canal", "weave"]
    workers = {each["worker"] for each in output["scenarios"]}
    assert workers <= {"gw0", "gw1"}


def test_a_mistake_in_a_file_is_an_error_with_its_place(folder: Folder) -> None:
    (folder.scenarios / "weave.yaml").write_text(SCENARIO.format(network="weave").replace("eth0: weave", "eth0: weve"))
    result = folder.run("scenarios")
    result.stdout.fnmatch_lines(
        ["scenarios/weave.yaml:6:*: expect[[]0[]].interfaces.eth0: unknown network 'weve'; did you mean 'weave'*"]
    )
    assert result.ret != 0


def test_a_backend_that_is_not_there_ends_the_run_with_one_sentence(folder: Folder) -> None:
    result = folder.run("scenarios", "--backend", "kindd")
    result.stderr.fnmatch_lines(["ERROR: --backend kindd: known are auto, embedded*"])
    assert result.ret == pytest.ExitCode.USAGE_ERROR


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["alone", "xdist"])
def test_a_cluster_that_does_not_start_is_in_every_report(folder: Folder, workers: list[str]) -> None:
    result = folder.run("scenarios", "--report", "out", *workers, faults=("no-cluster",))
    assert result.ret == 3
    assert "Exit: no image, and no engine that answers" in str(result.stdout)
    agree(folder, {"not run": 3}, 3, errors=3)


def test_a_scenario_that_the_environment_broke_is_broken_in_every_report(folder: Folder) -> None:
    result = folder.run("scenarios", "-k", "weave or canal", "--report", "out", faults=("broken-node",))
    assert result.ret == 3
    result.stdout.fnmatch_lines([" ! weave * broken: *", "BROKEN scenarios/weave.yaml::weave*", "* 1 error *"])
    agree(folder, {"broken": 1, "skipped": 1}, 3, errors=1, skipped=1)


def test_all_reports_agree_on_a_failure(folder: Folder) -> None:
    result = folder.run("scenarios", "-k", "weave", "--report", "out", faults=("unreachable",))
    assert result.ret == 1
    agree(folder, {"failed": 1}, 1, failures=1)


def test_reports_that_cannot_all_be_written_are_not_written_and_the_environment_is_broken(folder: Folder) -> None:
    limits = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))"  # as on a full disk
    (folder.scenarios / "conftest.py").write_text(limits)
    result = folder.run("scenarios", "-k", "weave", "--report", "out", "-p", "no:cacheprovider")
    assert result.ret == 3
    result.stdout.fnmatch_lines([" weave * 1 *", "ERROR: no report can be written into *out: File too large"])
    assert list((folder.path / "out").iterdir()) == []


def agree(folder: Folder, counts: dict[str, int], code: int, **junit: int) -> None:
    """JSON, page and JUnit have the same counts, and the exit code."""
    output = json.loads((folder.path / "out/report.json").read_text())
    assert (output["counts"], output["exit"]["code"]) == (counts, code)
    page = (folder.path / "out/index.html").read_text()
    assert all(f" {count} {verdict}</b>" in page for verdict, count in counts.items())
    suite = ElementTree.parse(folder.path / "out/junit.xml").getroot()[0]
    found = {key: int(suite.attrib[key]) for key in ("errors", "failures", "skipped")}
    assert found == {"errors": 0, "failures": 0, "skipped": 0, **junit}
    assert int(suite.attrib["tests"]) == sum(counts.values())


def test_keep(folder: Folder) -> None:
    result = folder.run("scenarios", "-k", "weave", "--keep", faults=("unreachable",))
    result.stdout.fnmatch_lines(["kept: namespace genie-weave-* with a, b"])


def test_a_file_can_be_named_wherever_it_lies(folder: Folder) -> None:
    shutil.move(folder.scenarios / "weave.yaml", folder.path / "mine.yaml")
    result = folder.run("mine.yaml")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines([" ✓ mine *"])


def test_other_tests_do_not_notice(folder: Folder) -> None:
    (folder.path / "tests").mkdir()
    (folder.path / "tests/test_it.py").write_text("def test_it():\n    pass\n")
    result = folder.run("tests", "--backend", "no-such")
    result.assert_outcomes(passed=1)
    assert "backend" not in result.stdout.str()


def test_the_plugin_is_cheap_to_import() -> None:
    code = "import sys, pytest; before = set(sys.modules); import harness.plugin; print(*(set(sys.modules) - before))"
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(made.stdout.split()) <= {"harness", "harness.plugin", "harness.run", "harness.run.collect"}


PROFILE = """\
network: {network}
embedded:
  {{kind: real, software: its own, plugins: [{network}], subnets: [10.9.0.0/16], file: 10-it.conf,
   conf: {{cniVersion: 1.0.0, name: {network}, type: {network}}}}}
"""


@pytest.mark.parametrize(
    ("code", "args", "error"),
    [
        (4, ["--swap", "weave=mynet"], "--swap weave=mynet: expected --profile FILE that describes mynet*"),
        (4, ["--networks", "weave,nosuch"], "--networks nosuch: expected --profile FILE that describes nosuch*"),
        (5, ["--networks", "weave,ptp"], "--networks: no selected scenario takes ptp, and no network that is not*"),
        (
            5,
            ["--networks", "weave,canal"],
            "--networks canal: skipped 1 of 1 scenarios of canal: canal is missing: its*",
        ),
        (5, ["--profile", "mine.yaml"], "--profile mine.yaml: no selected scenario takes mine: expected --swap OLD=m*"),
        (5, ["--profile", "mine.yaml", "--swap", "weve=mine"], "--swap weve=mine: expected the name of a *'weve'"),
        (5, ["--profile", "mine.yaml", "--swap", "weave=mine"], "--swap weave=mine: no network mine on this clust*"),
        (5, ["--profile", "canal.yaml", "-k", "canal"], "--profile canal.yaml: canal is missing: its image cannot *"),
        (5, ["--swap", "weave=canal", "-n", "2"], "--swap weave=canal: canal is missing: its image cannot be had"),
        (5, ["-k", "canal", "-n", "2"], "nothing was tested: skipped 1 of 1 scenarios: canal is missing*"),
        (5, ["-k", "nosuch"], "nothing was tested: no scenario is selected"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_never_ran_is_no_success(folder: Folder, code: int, args: list[str], error: str) -> None:
    """A successful run must have tested the requested networks; otherwise there is one clear error."""
    for name in ("mine", "canal"):
        (folder.path / f"{name}.yaml").write_text(PROFILE.format(network=name))
    plain = folder.scenarios / "plain.yaml"
    plain.write_text("scenario: x\nnetworks: []\npods: {a: }\nexpect: [{check-passes: a}]\n")
    result = folder.run("scenarios", *args)
    assert result.ret == code
    # A run that ends before its workers start reports it on both streams, as pytest does.
    found = [sum(fnmatch(line, f"*{error}*") for line in lines) for lines in (result.outlines, result.errlines)]
    assert max(found) == 1, str(result.stdout) + str(result.stderr)
    assert "Traceback" not in str(result.stdout) + str(result.stderr)


def test_skips_can_be_allowed(folder: Folder) -> None:
    assert folder.run("scenarios", "-k", "canal", "--allow-skips").ret == 0


@pytest.mark.parametrize("how", ["", "expect: []\n", "steps: [{create: a}]\n", "after-delete: [nothing-left]\n"])
def test_a_scenario_that_expects_nothing_is_refused(folder: Folder, how: str) -> None:
    text = "scenario: A pod\nnetworks: [weave]\npods: {a: {annotations: {cni: weave}}}\n"
    (folder.scenarios / "weave.yaml").write_text(text + how)
    result = folder.run("scenarios", "-k", "weave")
    result.stdout.fnmatch_lines(["scenarios/weave.yaml:*: expected *expect*with at least one check, found none"])
    assert result.ret != 0
