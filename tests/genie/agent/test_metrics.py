"""The metrics page, as Prometheus reads it."""

from __future__ import annotations

import re

from genie import __version__
from genie.agent.metrics import Counter, Histogram, Metrics


def test_numbers_keep_all_their_digits() -> None:
    """A counter with only six digits would not grow visibly above a million."""
    counter, histogram = Counter("c", "", "verb"), Histogram("h", "")
    counter.add(1_234_567, "ADD")
    counter.add(1, "ADD")
    assert counter.lines() == ['c{verb="ADD"} 1234568']
    for _ in range(2):
        histogram.observe(1234567.25)
    assert "h_sum 2469134.5" in histogram.lines()


def test_every_line_is_in_prometheus_format() -> None:
    metrics = Metrics()
    metrics.calls.add(1, "ADD", "ok")
    metrics.shims_dropped.add(1, 'with "quotes", a \\ and a \n')
    metrics.seconds.observe(0.003, "ADD")
    metrics.pod_networks.read = lambda: {("p", "blue", "eth0", "apps/side"): 0}
    sample = re.compile(r'[a-z_]+({[a-z]+="([^"\\\n]|\\["n\\])*"(,[a-z_]+="[^"]*")*})? [0-9.e+-]+')
    text = metrics.text()
    assert text.endswith("\n")
    for line in text.splitlines():
        assert re.fullmatch(r"# (HELP|TYPE) (genie|pod_network)_[a-z_]+ \S.*", line) or sample.fullmatch(line), line
    assert f'genie_build_info{{version="{__version__}"}} 1' in text.splitlines()
    buckets = [int(n) for n in re.findall(r"genie_call_seconds_bucket{.*} (\d+)", text)]
    assert buckets == sorted(buckets) and buckets[-1] == 1
