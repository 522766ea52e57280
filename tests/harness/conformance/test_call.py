"""A call as lines of shell does the same again, with the results that there are then."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from harness.conformance.call import Call

WORDS = st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="|"), max_size=8)


def _given(conf: dict[str, Any], first: Any, again: Any) -> Any:
    """The input of a CHECK in lines that were written with one result and run with another."""
    with TemporaryDirectory() as directory:
        binary, file = Path(directory, "plugin"), Path(directory, "result")
        binary.write_text("#!/bin/sh\ncat\n")
        binary.chmod(0o755)
        file.write_text(json.dumps(again, indent=2))
        call = Call(binary=str(binary), env={"CNI_COMMAND": "CHECK"}, stdin=json.dumps(conf).encode())
        lines = call.shell(known=[(first, str(file))])
        return json.loads(subprocess.run(["sh", "-c", lines], capture_output=True, check=True).stdout)


@given(WORDS, WORDS)
@settings(max_examples=20, deadline=None)
def test_a_result_is_that_of_the_same_run(word: str, key: str) -> None:
    first, again = ({"interfaces": [{"name": word, "mac": mac}]} for mac in ("02:00:00:00:00:01", "02:00:00:00:00:02"))
    assert _given({f"x{key}": word, "prevResult": first}, first, again) == {f"x{key}": word, "prevResult": again}


@given(WORDS.filter(bool))
@settings(max_examples=20, deadline=None)
def test_what_a_check_changed_in_it_is_changed_again(word: str) -> None:
    def result(mac: str, sandbox: str) -> dict[str, Any]:
        return {"interfaces": [{"mac": mac, "sandbox": sandbox}], "mtu": 1500}

    first, again = result("02:00:00:00:00:01", "/run/a.b"), result("02:00:00:00:00:02", "/run/a.b")
    changed = result("02:00:00:00:00:01", f"/{word}")
    found = _given({"prevResult": changed}, first, again)
    assert found == {"prevResult": result("02:00:00:00:00:02", f"/{word}")}


def test_a_result_of_another_form_is_written_out() -> None:
    assert _given({"prevResult": {"ips": []}}, {"interfaces": []}, {"interfaces": []}) == {"prevResult": {"ips": []}}
