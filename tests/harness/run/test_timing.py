"""The times of plugins come from genie's log lines."""

from __future__ import annotations

from typing import Any

from harness.run.timing import plugin_seconds


def call(verb: str, ifname: str, ms: float) -> dict[str, Any]:
    return {"plugin": "bridge", "verb": verb, "ifname": ifname, "status": 0, "ms": ms}


def line(verb: str, *delegates: dict[str, Any]) -> dict[str, Any]:
    return {"verb": verb, "selection": [["calico", "eth0"], ["weave", "eth1"]], "delegates": list(delegates)}


def test_a_chain_is_one_call_and_each_network_has_its_own() -> None:
    lines = [
        line("ADD", call("ADD", "eth0", 20), call("ADD", "eth0", 5), call("ADD", "eth1", 30)),
        line("ADD", call("ADD", "eth0", 10), call("DEL", "eth0", 1)),
        line("DEL", call("DEL", "eth1", 4), call("DEL", "net9", 9)),
        line("CHECK", call("CHECK", "eth0", 4)),
        {"verb": "ADD", "error": "no such network"},
    ]
    assert plugin_seconds(lines) == {
        "calico": {"ADD": (0.025, 0.01), "DEL": (0.001,)},
        "weave": {"ADD": (0.03,), "DEL": (0.004,)},
    }
