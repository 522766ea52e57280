"""genie's list, with plugins that others add."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genie import config
from genie.cni.config import parse
from genie.node import conflist
from tests.rigs.install import CONF

PLUGINS = st.lists(st.fixed_dictionaries({"type": st.sampled_from(["istio-cni", "linkerd-cni", "tuning"])}), max_size=4)
VERSIONS = st.sampled_from(["0.1.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(VERSIONS, PLUGINS, st.lists(st.sampled_from(["ips", "mac", "dns"])), st.lists(st.sets(VERSIONS), max_size=2))
def test_a_runtime_and_genie_read_it_as_it_was_meant(
    tmp_path: Path, least: str, behind: list[dict[str, Any]], declared: list[str], spoken: list[set[str]]
) -> None:
    conf = {**CONF, "cniVersion": least, "serial": True, "disableCheck": True, "capabilities": {"dns": False}}
    whole = conflist.conflist(conf, behind, declared, spoken)
    (path := tmp_path / "00-genie.conflist").write_text(json.dumps(whole))
    read = parse(path.read_text(), str(path))
    assert read.types == ("genie", *(plugin["type"] for plugin in behind)) and read.disable_check
    own = config.load(str(path))
    assert own.serial and own.cni_version == least and config.beside(str(path)) == behind
    assert own.raw["capabilities"] == {**dict.fromkeys(declared, True), "dns": False}
    for version in whole.get("cniVersions", []):
        assert version >= max(least, "1.0.0") and all(version in each for each in spoken)
    if least == "1.0.0" and all({"1.0.0", "1.1.0"} <= each for each in spoken):
        assert read.cni_version == "1.1.0"
    assert conflist.conflist(own.raw, behind, declared, spoken) == whole, "written anew, it is the same"


@given(PLUGINS, PLUGINS)
def test_plugins_that_others_added_come_after_those_of_the_source(given: list[Any], found: list[Any]) -> None:
    merged = conflist.extended(given, found)
    assert merged[: len(given)] == given
    types = {plugin["type"] for plugin in given}
    assert merged[len(given) :] == [plugin for plugin in found if plugin["type"] not in types]
    assert conflist.extended(given, merged[len(given) :]) == merged


@pytest.mark.parametrize("versions", [["1.0.0"], ["0.4.0", "1.1.0"]])
def test_the_versions_of_genie_conf_have_the_last_word(versions: list[str]) -> None:
    assert conflist.conflist({**CONF, "cniVersions": versions}, spoken=[set()])["cniVersions"] == versions
