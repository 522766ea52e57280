"""--step, as somebody at a terminal uses it."""

from __future__ import annotations

import pytest

from tests.rigs.folder import Folder

pytest_plugins = ["pytester"]


def test_a_run_stops_before_each_step_and_opens_shells(folder: Folder) -> None:
    run = folder.begin("scenarios/weave.yaml", "--step")
    shown, _ = run.communicate(b"\na\nnobody\n\n\n", timeout=60)
    text = shown.decode()
    places = [
        text.index(each)
        for each in (
            "next step: create a, b\n  pods: none yet; namespace genie-weave-",
            "next step: expect interfaces pod: a, eth0: weave\n  expect reach from: a, to: b, ",
            "over: weave\n  pods: a on ",
            "$ echo 'a shell in a'",
            "\na shell in a\n",
            "step> expected Enter, c, q or one of the pods a on ",
            "got 'nobody'",
            "next step: delete a, b\n",
            " ✓ weave ",
        )
    ]
    assert places == sorted(places), text
    assert run.returncode == 0


def test_c_goes_on_without_stops(folder: Folder) -> None:
    shown, _ = folder.begin("scenarios", "-k", "weave or calico", "--step").communicate(b"c\n", timeout=60)
    assert shown.decode().count("next step:") == 1
    assert "2 passed" in shown.decode()


@pytest.mark.parametrize("typed", [b"q\n", b""])
def test_q_or_the_end_of_the_input_ends_the_run(folder: Folder, typed: bytes) -> None:
    run = folder.begin("scenarios", "-k", "weave or calico", "--step")
    shown, _ = run.communicate(typed, timeout=60)
    assert run.returncode not in (0, 1), shown.decode()
    assert shown.decode().count("next step:") == 1
    assert ("standard input has ended" in shown.decode()) == (not typed)


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (["--step", "-n", "2"], "--step: expected no -n"),
        (["--watch", "-n", "2"], "--watch: expected no -n"),
        (["--watch", "--keep"], "--watch: expected no --keep"),
    ],
)
def test_options_that_contradict_each_other_are_refused(folder: Folder, args: list[str], reason: str) -> None:
    result = folder.run("scenarios", *args)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {reason}*"])
