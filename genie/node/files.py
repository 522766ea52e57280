"""Files on a node: written atomically, and removed by a journal.

The journal under /var/lib/cni/genie/install/ lists genie's files, and has copies of the files that they replaced.
Removing genie undoes the journal: first the configuration, so that the runtime uses the previous one again, then the
rest.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from genie import config, locks, removals
from genie.cni import regular
from genie.cni.config import conf_files, is_type
from genie.cni.errors import CniError, Code
from genie.cni.execute import SubprocessExecutor, run_sync
from genie.cni.invoke import Attachment, supported_versions
from genie.log import Log
from genie.node import conflist
from genie.select.networks import Directory, rival

log = Log("genie.install")

VERSION_TIMEOUT = 5.0  # seconds

#: Names for genie.conf, the usual one first; each of the others sorts before the one before it.
CONF_NAMES = ("00-genie.conflist", "0-genie.conflist", "+0-genie.conflist", "!0-genie.conflist")
#: Names of genie.conf before it was a list, and CNI-Genie's; each sorts before the list's name, so it is moved away.
ASIDE = tuple(name.removesuffix("list") for name in CONF_NAMES)


@dataclass(frozen=True, kw_only=True)
class Node:
    """Paths on the node. The directories are the node's own; a pod has them mounted under the same names."""

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
    """The files to install on the node.

    conf: if it has no `kubernetes`, the installed kubeconfig is added. behind: the plugins that come after genie in its
    list.
    """

    plugin: bytes
    conf: Mapping[str, Any]
    kubeconfig: bytes | None = None
    behind: Sequence[Mapping[str, Any]] = ()


class Journal:
    """genie's files on the node: path to the copy of the file that was there before, or "" if there was none."""

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
                f"{self.path} is damaged ({error}): the node's files from before genie are in {self.before}; "
                "put it back by hand, then delete the journal",
            ) from error

    @property
    def before(self) -> str:
        return f"{os.path.dirname(self.path)}/before"

    def claim(self, path: str) -> None:
        """Add a path to the journal, with a copy of the current file; called before the path is changed."""
        if path in self.files:
            return
        kept = ""
        if os.path.exists(path):
            kept = f"{self.before}/{path.strip('/').replace('/', '~')}"
            with open(path, "rb") as file:
                write(kept, file.read(), os.stat(path).st_mode & 0o777)
        self.files[path] = kept
        self._save()

    def set_aside(self, path: str) -> bool:
        """Move a file away until genie is removed; returns whether there was one."""
        if not os.path.exists(path):
            return False
        self.claim(path)
        os.unlink(path)
        if not self.files[path]:  # genie's own, from an earlier version: not restored
            del self.files[path]
            self._save()
        return True

    def give_back(self, path: str) -> bool:
        """Restore the file that was at a path before genie's, or remove genie's; returns True: it is not genie's any
        more.
        """
        kept = self.files.get(path, "")
        if kept and os.path.exists(kept):
            with open(kept, "rb") as file:  # not renamed: it may be on another file system, in a pod it always is
                write(path, file.read(), os.stat(kept).st_mode & 0o777)
            os.unlink(kept)
        elif path in self.files and os.path.exists(path):
            os.unlink(path)
        self.files.pop(path, None)
        self._save()
        return True

    def _save(self) -> None:
        write(self.path, json.dumps({"files": self.files}, indent=2).encode(), 0o600)


def write(path: str, content: bytes, mode: int) -> bool:
    """Write a file atomically; does nothing if the content and the mode are right."""
    if _is(path, content, mode):
        return False
    os.makedirs(os.path.dirname(path), exist_ok=True)
    regular.put(path, content, mode)
    return True


def _is(path: str, content: bytes, mode: int) -> bool:
    try:
        with open(path, "rb") as file:
            return os.fstat(file.fileno()).st_mode & 0o777 == mode and file.read() == content
    except OSError:
        return False


@contextlib.contextmanager
def changing(node: Node) -> Iterator[None]:
    """A lock, so that only one process changes the node at a time."""
    os.makedirs(node.keepers, exist_ok=True)
    with locks.alone(os.path.dirname(node.journal)):
        yield


def install(node: Node, wanted: Wanted) -> list[str]:
    """Install genie on the node, or update it; returns the paths that changed.

    Raises CniError: genie.conf is wrong; nothing was changed then.
    """
    config.parse(dict(wanted.conf), "genie.conf")
    changed = []
    with changing(node):
        journal = Journal(node)
        own = conf_path(node, journal)
        files = [(node.plugin, wanted.plugin, 0o755)]
        if wanted.kubeconfig is not None:
            files.append((node.kubeconfig, wanted.kubeconfig, 0o600))
        files.append((own, _conf_text(node, own, wanted), 0o600))
        for path, content, mode in files:
            journal.claim(path)
            if write(path, content, mode):
                changed.append(path)
        stale = sorted(journal.files.keys() - {path for path, *_ in files})
        for path in dict.fromkeys([*stale, *(f"{node.conf_dir}/{name}" for name in ASIDE)]):
            if journal.set_aside(path) if os.path.basename(path) in ASIDE else journal.give_back(path):
                changed.append(path)
        if (first := confs(node.conf_dir)[0]) != os.path.basename(own):
            log.error("genie cannot be first in net.d", first=first, directory=node.conf_dir)
    return changed


def _conf_text(node: Node, own: str, wanted: Wanted) -> bytes:
    """The text of genie's list. If the node's has equal content it is returned: others may have formatted it."""
    conf = dict(wanted.conf)
    if wanted.kubeconfig is not None:
        conf.setdefault("kubernetes", {"kubeconfig": node.kubeconfig})
    behind = conflist.extended(wanted.behind, _added(node))
    found = Directory(node.conf_dir).networks() if confs(node.conf_dir) else []
    networks = [network for network in found if not rival(network)]
    spoken = [_spoken(node.bin_dir, plugin["type"]) for plugin in behind]
    whole = conflist.conflist(conf, behind, conflist.declared(networks), spoken)
    with contextlib.suppress(OSError, ValueError), open(own, "rb") as file:
        if json.loads(text := file.read()) == whole:
            return text
    return json.dumps(whole, indent=2).encode() + b"\n"


def _spoken(directory: str, kind: str) -> tuple[str, ...]:
    """The versions that a plugin speaks; empty if it cannot be called. It is called once for each of its files."""
    try:
        stat = os.stat(f"{directory}/{kind}")
    except OSError:
        return ()
    return _answered(directory, kind, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=16)
def _answered(directory: str, kind: str, _mtime: int, _size: int) -> tuple[str, ...]:
    try:
        at = Attachment(path=(directory,), timeout=VERSION_TIMEOUT)
        return run_sync(supported_versions(kind, at, SubprocessExecutor()))
    except CniError:
        return ()


def _added(node: Node) -> list[dict[str, Any]]:
    """The plugins that others added behind genie, in any file of net.d."""
    path = config.find(node.conf_dir)
    if path is None:
        return []
    try:
        return [plugin for plugin in config.beside(path) if is_type(plugin.get("type"))]
    except CniError:  # another program's list with genie in the middle does not extend genie's
        return []


def remove(node: Node) -> list[str]:
    """Remove genie from the node and restore the files from before; returns the paths that changed."""
    with changing(node):
        return remove_changing(node)


def remove_changing(node: Node) -> list[str]:
    journal = Journal(node)
    paths = sorted(journal.files, key=lambda path: (not is_conf(node, path), path == node.plugin))
    for path in paths:
        journal.give_back(path)
    for path in (node.journal, removals.path(node.state_dir)):
        if os.path.exists(path):
            os.unlink(path)
    for leftover in (os.path.dirname(node.kubeconfig), journal.before, node.keepers, os.path.dirname(node.journal)):
        try:
            os.rmdir(leftover)
        except OSError:
            pass  # the directory does not exist, or has files of others
    return paths


def conf_path(node: Node, journal: Journal) -> str:
    """The path for genie.conf that makes it first in net.d; if it cannot be first, the path nearest to that."""
    first = next(iter(others(node, journal)), "")
    for name in CONF_NAMES:
        if not first or name < first:
            return f"{node.conf_dir}/{name}"
    return f"{node.conf_dir}/{CONF_NAMES[-1]}"


def others(node: Node, journal: Journal) -> list[str]:
    """The names of other configurations in net.d than genie's, in order."""
    mine = {os.path.basename(path) for path in journal.files if is_conf(node, path)}.union(CONF_NAMES, ASIDE)
    return [name for name in confs(node.conf_dir) if name not in mine]


def confs(directory: str) -> list[str]:
    """The names of the configurations in a net.d directory, in order; empty if there is no directory."""
    try:
        return conf_files(directory)
    except FileNotFoundError:
        return []


def is_conf(node: Node, path: str) -> bool:
    return os.path.dirname(path) == node.conf_dir


def out_of_place(node: Node, plugin: bytes) -> str:
    """The reason that the runtime does not call genie; "" if it does. Compares only names and sizes, because it is
    called every second.
    """
    names, own = confs(node.conf_dir), os.path.basename(conf_path(node, Journal(node)))
    if own not in names:
        renamed = next(iter(sorted(glob.glob(f"{glob.escape(own)}.*", root_dir=node.conf_dir))), "")
        return f"{node.conf_dir}/{own} is gone" + (f", and {renamed} is there" if renamed else "")
    if names[0] != own:
        return f"{node.conf_dir}/{names[0]} comes before {own}"
    try:
        good = os.stat(node.plugin).st_size == len(plugin)
    except OSError:
        return f"{node.plugin} is gone"
    return "" if good else f"{node.plugin} is another file"
