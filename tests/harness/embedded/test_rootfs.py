"""A node's file system."""

from __future__ import annotations

from pathlib import Path

from harness.embedded import rootfs


def test_links_lead_to_the_hosts_entries(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("../etc/file")
    assert rootfs._target(tmp_path / "file") == tmp_path / "file"
    assert rootfs._target(tmp_path / "link") == Path("../etc/file")


def test_a_plugin_is_linked_to_where_the_hosts_is_even_if_a_node_has_that_directory_for_itself(tmp_path: Path) -> None:
    rootfs.install(str(tmp_path), ["/opt/cni/bin/bridge"])
    assert (tmp_path / "bridge").readlink() == Path("/.host/opt/cni/bin/bridge")
