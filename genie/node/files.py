"""Files on a node: each put there whole or not at all, and taken away again by a journal.

The journal under /var/lib/cni/genie/install/ says which files are genie's, and keeps what was in their places before.
To remove genie goes by it: the configuration first, so that the runtime is back at what it used before, then the rest.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from genie import config, locks
from genie.cni.config import conf_files
from genie.cni.errors import CniError, Code

log = logging.getLogger("genie.install")

#: Names for genie.conf, the usual one first; each of the others sorts before the one before it.
CONF_NAMES = ("00-genie.conf", "0-genie.conf", "+0-genie.conf", "!0-genie.conf")


@dataclass(frozen=True, kw_only=True)
class Node:
    """Where things are on the node. The directories are the node's own, mounted under the same names in a pod."""

    bin_dir: str = "/opt/cni/bin"
    conf_dir: str = config.DEFAULT_CONF_DIR
    state_dir: str = config.DEFAULT_STATE_DIR

    @property
    def plugin(self) -> str:
        return f"{self.bin_dir}/genie"

    @property
    def kubeconfig(self) -> str:
        return f"{self.conf_dir}/genie.d/kubeconfig"

    @property
    def journal(self) -> str:
        return f"{self.state_dir}/install/journal.json"

    @property
    def keepers(self) -> str:
        return f"{self.state_dir}/install/keepers"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is to be on the node. conf: without `kubernetes`, it gets the kubeconfig that is installed with it."""

    plugin: bytes
    conf: Mapping[str, Any]
    kubeconfig: bytes | None = None

    def conf_text(self, node: Node) -> bytes:
        conf = dict(self.conf)
        if self.kubeconfig is not None:
            conf.setdefault("kubernetes", {"kubeconfig": node.kubeconfig})
        return json.dumps(conf, indent=2).encode() + b"\n"


class Journal:
    """Which files on the node are genie's: path to the copy of what was there before, or "" where nothing was."""

    def __init__(self, node: Node) -> None:
        self.path = node.journal
        try:
            with open(self.path, encoding="utf-8") as file:
                self.files: dict[str, str] = json.load(file)["files"]
        except FileNotFoundError:
            self.files = {}
        except (ValueError, TypeError, KeyError) as error:
            raise CniError(
                Code.DECODING_FAILURE,
                f"{self.path} is damaged ({error}): what was on the node before genie is in {self.before}; "
                "put it back by hand, then delete the journal",
            ) from error

    @property
    def before(self) -> str:
        return f"{os.path.dirname(self.path)}/before"

    def claim(self, path: str) -> None:
        """Make a path genie's, with a copy of what is there now; done before anything is changed."""
        if path in self.files:
            return
        kept = ""
        if os.path.exists(path):
            kept = f"{self.before}/{path.strip('/').replace('/', '~')}"
            with open(path, "rb") as file:
                write(kept, file.read(), os.stat(path).st_mode & 0o777)
        self.files[path] = kept
        self._save()

    def give_back(self, path: str) -> None:
        """Put back what was at a path before it was genie's, or nothing."""
        kept = self.files.get(path, "")
        if kept and os.path.exists(kept):
            with open(kept, "rb") as file:  # not renamed: it may be on another file system, and in a pod always is
                write(path, file.read(), os.stat(kept).st_mode & 0o777)
            os.unlink(kept)
        elif path in self.files and os.path.exists(path):
            os.unlink(path)
        self.files.pop(path, None)
        self._save()

    def _save(self) -> None:
        write(self.path, json.dumps({"files": self.files}, indent=2).encode(), 0o600)


def write(path: str, content: bytes, mode: int) -> bool:
    """Write a file so that it is there whole or not at all; nothing is done where it is as it should be."""
    if _is(path, content, mode):
        return False
    os.makedirs(os.path.dirname(path), exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".genie-")  # no name that a runtime reads
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return True


def _is(path: str, content: bytes, mode: int) -> bool:
    try:
        with open(path, "rb") as file:
            return os.fstat(file.fileno()).st_mode & 0o777 == mode and file.read() == content
    except OSError:
        return False


@contextlib.contextmanager
def changing(node: Node) -> Iterator[None]:
    """While one process changes the node, others wait."""
    os.makedirs(node.keepers, exist_ok=True)
    with locks.alone(os.path.dirname(node.journal)):
        yield


def install(node: Node, wanted: Wanted) -> list[str]:
    """Put genie on the node, or bring what is there up to date; returns the paths that changed.

    Raises:
        CniError: genie.conf is wrong; nothing was changed then.
    """
    config.parse(dict(wanted.conf), "genie.conf")
    changed = []
    with changing(node):
        journal = Journal(node)
        files = [(node.plugin, wanted.plugin, 0o755)]
        if wanted.kubeconfig is not None:
            files.append((node.kubeconfig, wanted.kubeconfig, 0o600))
        files.append((conf_path(node, journal), wanted.conf_text(node), 0o600))
        for path, content, mode in files:
            journal.claim(path)
            if write(path, content, mode):
                changed.append(path)
        for stale in journal.files.keys() - {path for path, *_ in files}:
            journal.give_back(stale)
            changed.append(stale)
    return changed


def remove(node: Node) -> list[str]:
    """Take genie off the node; returns the paths that changed. What was there before genie is there again."""
    with changing(node):
        return remove_changing(node)


def remove_changing(node: Node) -> list[str]:
    journal = Journal(node)
    paths = sorted(journal.files, key=lambda path: (not is_conf(node, path), path == node.plugin))
    for path in paths:
        journal.give_back(path)
    if os.path.exists(node.journal):
        os.unlink(node.journal)
    for leftover in (os.path.dirname(node.kubeconfig), journal.before, node.keepers, os.path.dirname(node.journal)):
        try:
            os.rmdir(leftover)
        except OSError:
            pass  # it is not there, or somebody has put something else into it
    return paths


def conf_path(node: Node, journal: Journal) -> str:
    """Where genie.conf must be to be the first in net.d, whatever others are there."""
    first = next(iter(others(node, journal)), "")
    for name in CONF_NAMES:
        if not first or name < first:
            return f"{node.conf_dir}/{name}"
    log.error("genie cannot be first in net.d", extra={"fields": {"first": first, "directory": node.conf_dir}})
    return f"{node.conf_dir}/{CONF_NAMES[-1]}"


def others(node: Node, journal: Journal) -> list[str]:
    """The names of the configurations in net.d that are not genie's, in order."""
    mine = {os.path.basename(path) for path in journal.files if is_conf(node, path)} | set(CONF_NAMES)
    return [name for name in confs(node.conf_dir) if name not in mine]


def confs(directory: str) -> list[str]:
    """The names of the configurations in a net.d directory, the first one first; none where there is no directory."""
    try:
        return conf_files(directory)
    except FileNotFoundError:
        return []


def is_conf(node: Node, path: str) -> bool:
    return os.path.dirname(path) == node.conf_dir


def in_place(node: Node, plugin: bytes) -> bool:
    """Whether genie is on the node and first in net.d; looks at names and sizes only, for it is asked every second."""
    names = confs(node.conf_dir)
    journal = Journal(node)
    try:
        good = os.stat(node.plugin).st_size == len(plugin)
    except OSError:
        good = False
    return good and bool(names) and f"{node.conf_dir}/{names[0]}" in journal.files
