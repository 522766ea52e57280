"""Fixtures for all tests: temporary network namespaces, and the real plugins."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.rigs.netns import Namespace

# A test may be slow if the machine is busy.
hypothesis.settings.register_profile("busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
# `nox -s mutants` runs the tests of a function once for each of its mutants; it does not matter which example fails.
hypothesis.settings.register_profile(
    "mutants",
    hypothesis.settings.get_profile("busy"),
    max_examples=30,
    derandomize=True,
    database=None,
    phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),
)
hypothesis.settings.load_profile(os.environ.get("GENIE_HYPOTHESIS", "busy"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """For mutants, run examples before properties: an example kills most mutants, in a hundredth of the time."""
    if os.environ.get("GENIE_HYPOTHESIS") == "mutants":
        items.sort(key=lambda item: hasattr(getattr(item, "obj", None), "hypothesis"))


@pytest.fixture
def namespace() -> Iterator[Callable[[], Namespace]]:
    """Makes network namespaces; skips with the reason if this is not possible."""
    if shutil.which("ip") is None:
        pytest.skip("network namespaces: `ip` of iproute2 is not there")
    made: list[Namespace] = []

    def make() -> Namespace:
        try:
            made.append(Namespace())
        except PermissionError:
            pytest.skip("network namespaces: need root, or CAP_SYS_ADMIN in a user namespace")
        return made[-1]

    yield make
    for one in made:
        one.close()


REFERENCE = ("bridge", "bandwidth", "host-local", "loopback", "macvlan", "portmap", "ptp", "static", "tuning")


@pytest.fixture(scope="session")
def cni_bin(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A directory with the reference plugins (containernetworking/plugins), found as by the harness: $GENIE_CNI_BIN,
    installed ones, the pinned release, Debian's package, a build; skips with the reason if there are none.
    """
    from harness.embedded import binaries

    try:
        found = binaries.plugins(binaries.given(), REFERENCE, REFERENCE)
    except binaries.NotFound as error:
        pytest.skip(str(error))
    directory = tmp_path_factory.mktemp("cni-bin")
    for path in found.paths:
        (directory / Path(path).name).symlink_to(path)
    return str(directory)
