"""A vendor's profile as something to test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness import catalog
from harness.conformance.subject import Subject, Unusable, of


def read(path: Path, plugin: Path | None = None, paths: Sequence[Path] = ()) -> Subject:
    """The network of a profile's `embedded` section, on a first node.

    Args:
        plugin: the binary, if it is not one that is found by its type.
        paths: directories with further plugins.

    Raises:
        Unusable: the profile is not valid, describes no plugin that runs by itself, or a binary is nowhere.
    """
    try:
        network = catalog.read(path)
        if network.embedded is None:
            raise Unusable(f"{path}: embedded: expected the section with the plugin's configuration")
        conf = catalog.conf(network.embedded, catalog.Place(number=1, name="node1", address="192.0.2.10"))
    except catalog.ProfileError as error:
        raise Unusable(str(error)) from error
    asked = network.conformance
    return of(
        conf, str(path), plugin and plugin.absolute(), wanted=asked.plugin, paths=[*paths, path.parent],
        stays=asked.stays, claims=asked.claims,
    )  # fmt: skip
