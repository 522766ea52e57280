"""`genie install`: genie onto a node, kept there, and off again with the node as it was.

What is put on a node, each file whole or not at all (written beside its place, then renamed), also over a running one:

    /opt/cni/bin/genie                      the plugin: the shim, or in direct mode a script
    /etc/cni/net.d/genie.d/kubeconfig       how direct mode and `genie explain` reach the API server
    /etc/cni/net.d/00-genie.conf            genie.conf; last, for with it the runtime begins to call genie

The journal under /var/lib/cni/genie/install/ says which files are genie's, and keeps what was in their places before.
`--remove` goes by it: the configuration first, so that the runtime is back at what it used before, then the rest.

In the DaemonSet `--keep` runs beside the agent. It waits until that serves, so that the runtime never calls a genie
that nobody answers for; then it installs, puts back what somebody took away, keeps genie first in net.d and the
kubeconfig's token fresh. When it is ended it asks the API server for its DaemonSet: still there, as in a rolling update
or when a node is drained, then genie stays; gone, then nobody will answer the shim any more, and it removes genie from
the node.

In a rolling update two of them are on a node for a moment. Each that keeps holds a file (see locks.py) with a
number; the one with the highest keeps, the others look on, and none removes what another one keeps.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from genie import config, kube, locks
from genie import log as logs
from genie.cni.errors import CniError, Code
from genie.select.networks import SUFFIXES

log = logging.getLogger("genie.install")

#: Names for genie.conf, the usual one first; each of the others sorts before the one before it.
CONF_NAMES = ("00-genie.conf", "0-genie.conf", "+0-genie.conf", "!0-genie.conf")
DEFAULT_CONF: Mapping[str, Any] = {
    **{"cniVersion": "1.0.0", "name": "genie", "type": "genie"},
    "capabilities": {"portMappings": True, "bandwidth": True, "dns": True},  # what the runtime is to hand over
}
EVERY = 1.0  # seconds between two looks of --keep at the node
REFRESH = 60.0  # seconds between two looks at genie.conf's source and the account's token, which the kubelet renews
ASKS = 3  # times that the API server is asked whether the DaemonSet is gone, while it does not answer


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
def _changing(node: Node) -> Iterator[None]:
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
    with _changing(node):
        return _install(node, wanted)


def _install(node: Node, wanted: Wanted) -> list[str]:
    journal = Journal(node)
    conf = conf_path(node, journal)
    files = [(node.plugin, wanted.plugin, 0o755)]
    if wanted.kubeconfig is not None:
        files.append((node.kubeconfig, wanted.kubeconfig, 0o600))
    files.append((conf, wanted.conf_text(node), 0o600))
    changed = []
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
    with _changing(node):
        return _remove(node)


def _remove(node: Node) -> list[str]:
    journal = Journal(node)
    paths = sorted(journal.files, key=lambda path: (not _is_conf(node, path), path == node.plugin))
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
    mine = {os.path.basename(path) for path in journal.files if _is_conf(node, path)} | set(CONF_NAMES)
    return [name for name in confs(node.conf_dir) if name not in mine]


def confs(directory: str) -> list[str]:
    """The names of the configurations in a net.d directory, in the order in which the runtime looks at them."""
    try:
        return sorted(name for name in os.listdir(directory) if name.endswith(SUFFIXES))
    except FileNotFoundError:
        return []


def _is_conf(node: Node, path: str) -> bool:
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


def kubeconfig(environment: Mapping[str, str] = os.environ) -> bytes | None:
    """A kubeconfig of the pod's service account, for the node; None outside a cluster.

    It has the API server's Service address, which kube-proxy serves on the node as well, and the token itself, since
    the node does not see the pod's files; `--keep` renews it.
    """
    host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT", "443")
    token = f"{kube.SERVICE_ACCOUNT}/token"
    if not host or not os.path.exists(token):
        return None
    import base64

    with open(f"{kube.SERVICE_ACCOUNT}/ca.crt", "rb") as file:
        authority = base64.b64encode(file.read()).decode()
    with open(token, encoding="ascii") as text:
        user = {"token": text.read().strip()}
    cluster = {
        "server": f"https://{f'[{host}]' if ':' in host else host}:{port}",
        "certificate-authority-data": authority,
    }
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "genie",
        "clusters": [{"name": "cluster", "cluster": cluster}],
        "users": [{"name": "genie", "user": user}],
        "contexts": [{"name": "genie", "context": {"cluster": "cluster", "user": "genie"}}],
    }
    return json.dumps(document, indent=2).encode() + b"\n"


class Claim:
    """A keeper's turn at a node: a numbered file that it holds while it lives."""

    def __init__(self, node: Node) -> None:
        self.node = node
        with _changing(node):
            numbers = _numbers(node)
            for left in numbers.keys() - _keepers(node):
                os.unlink(numbers[left])
            self.number = 1 + max(numbers, default=0)
            self._path = f"{node.keepers}/{self.number}"
            self._handle = locks.hold(self._path)

    def is_newest(self) -> bool:
        return max(_keepers(self.node), default=0) <= self.number

    def drop(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        os.close(self._handle)


def _numbers(node: Node) -> dict[int, str]:
    """The files of keepers, by number."""
    try:
        return {int(name): f"{node.keepers}/{name}" for name in os.listdir(node.keepers)}
    except FileNotFoundError:
        return {}


def _keepers(node: Node) -> set[int]:
    """The numbers of the keepers that are alive."""
    return {number for number, path in _numbers(node).items() if locks.is_held(path)}


def check_not_kept(node: Node) -> None:
    """Refuse to change a node by hand that a keeper would change back within a second.

    Raises:
        CniError: there is one.
    """
    if _keepers(node):
        raise CniError(
            Code.TRY_AGAIN,
            "genie is kept on this node by its DaemonSet, which would undo this at once: change the DaemonSet or its "
            "ConfigMap instead, or delete it (kubectl --namespace kube-system delete daemonset genie)",
        )


class Keeper:
    """`--keep`: genie stays on the node as it was put, until the pod is ended."""

    def __init__(self, node: Node, options: argparse.Namespace) -> None:
        self.node, self.options = node, options
        self.ending = threading.Event()
        self.sees_daemonset = False
        self.claim: Claim | None = None
        self._complained = ""

    def run(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.ending.set())
        self._look_for_daemonset()
        if self._wait():
            self._keep()
        self._leave()

    def _wait(self) -> bool:
        """Until the node can do with genie; False if that did not come about before the end."""
        said = ""
        while missing := self._missing():
            if missing != said:
                log.info("waiting", extra={"fields": {"for": missing}})
                said = missing
            if self.ending.wait(EVERY):
                return False
        return True

    def _missing(self) -> str:
        """What genie needs first. Where it is installed already, the runtime calls it whatever else there is."""
        if self.options.after and not locks.is_held(self.options.after):
            return f"the agent, which holds {self.options.after} once it serves"
        journal = Journal(self.node)
        if journal.files or self._wanted(None).conf.get("default_plugin") or others(self.node, journal):
            return ""
        return f"the configuration of a first network in {self.node.conf_dir}, or default_plugin in genie.conf"

    def _keep(self) -> None:
        self.claim = Claim(self.node)
        wanted = self._bring_up_to_date(None)
        if self.options.ready_file:
            locks.hold(self.options.ready_file)
        waited = 0.0
        while not self.ending.wait(EVERY):
            waited += EVERY
            due = waited >= REFRESH
            if due:
                waited = 0.0
                self._look_for_daemonset()
            if self.claim.is_newest() and (due or not in_place(self.node, wanted.plugin)):
                wanted = self._bring_up_to_date(wanted)

    def _leave(self) -> None:
        gone = self.sees_daemonset and self._is_gone()
        with _changing(self.node):
            if self.claim:
                self.claim.drop()
            if not gone:
                return
            if _keepers(self.node):  # of a newer DaemonSet, or of this one in mid-update: the last to leave removes
                log.info("left to another keeper on this node")
                return
            files = _remove(self.node)
        log.info("removed", extra={"fields": {"files": files}})

    def _bring_up_to_date(self, before: Wanted | None) -> Wanted:
        """Install what is wanted now. A genie.conf that somebody changed on the node stays while the source is the
        same."""
        wanted = self._wanted(before)
        try:
            current = self._current_conf() if before and before.conf == wanted.conf else None
            changed = install(self.node, Wanted(
                plugin=wanted.plugin, conf=current or wanted.conf, kubeconfig=wanted.kubeconfig
            ))  # fmt: skip
            self._complained = ""
            if changed:
                log.info("installed", extra={"fields": {"files": changed}})
        except (CniError, OSError) as error:
            self._complain(error)
        return wanted

    def _wanted(self, before: Wanted | None) -> Wanted:
        """What is to be on the node. Once genie is there, a genie.conf with a mistake in it changes nothing: a keeper
        that ended for it could not remove genie any more.

        Raises:
            CniError: genie.conf is wrong, and there is none that could go on being used.
        """
        try:
            return read_wanted(self.options)
        except CniError as error:
            conf = before.conf if before else self._current_conf()
            if conf is None:
                raise
            self._complain(error)
            return Wanted(plugin=_plugin(self.options.direct), conf=conf, kubeconfig=_kubeconfig(self.options))

    def _complain(self, error: Exception) -> None:
        """Once for each kind of trouble, not once a second."""
        if str(error) != self._complained:
            self._complained = str(error)
            log.error("cannot install", extra={"fields": {"error": str(error)}})

    def _current_conf(self) -> Mapping[str, Any] | None:
        mine = [path for path in Journal(self.node).files if _is_conf(self.node, path)]
        for path in mine:
            try:
                with open(path, encoding="utf-8") as file:
                    data = json.load(file)
                    config.parse(data)
                    return dict(data)
            except (OSError, ValueError, CniError):
                continue
        return None

    def _look_for_daemonset(self) -> None:
        if not self.options.daemonset or self.sees_daemonset:
            return
        self.sees_daemonset = self._daemonset() == "there"
        if not self.sees_daemonset:
            log.warning("cannot see its DaemonSet: when that is deleted, run `genie install --remove` on the nodes")

    def _is_gone(self) -> bool:
        for _ in range(ASKS):
            if answer := self._daemonset():
                return answer == "gone"
            time.sleep(EVERY)
        return False

    def _daemonset(self) -> str:
        """Whether the DaemonSet is "there" or "gone"; "" if that cannot be told.

        When all of genie is deleted at once, so are its account and its rights: refused also means gone, once it
        has been seen.
        """
        namespace, _, name = self.options.daemonset.partition("/")
        try:
            client = kube.Client(kube.server(config.Credentials()), timeout=5.0)
            status, data = client.request("GET", f"/apis/apps/v1/namespaces/{namespace}/daemonsets/{name}")
        except CniError as error:
            log.warning("cannot ask for its DaemonSet", extra={"fields": {"error": str(error)}})
            return ""
        if status == 200:
            return "gone" if data["metadata"].get("deletionTimestamp") else "there"
        if status == 404 or (status in (401, 403) and self.sees_daemonset):
            return "gone"
        return ""


def read_wanted(options: argparse.Namespace) -> Wanted:
    """What the command line asks to be on the node.

    Raises:
        CniError: genie.conf cannot be read or is wrong, direct mode would have no way to the API server, or there is
            no shim for this machine.
    """
    conf: Mapping[str, Any] = DEFAULT_CONF
    if options.conf:
        try:
            with open(options.conf, encoding="utf-8") as file:
                conf = json.load(file)
        except (OSError, ValueError) as error:
            raise CniError(Code.INVALID_CONFIG, f"cannot read {options.conf}: {error}") from error
    parsed, access = config.parse(dict(conf), options.conf or "genie.conf"), _kubeconfig(options)
    if options.direct and access is None and not options.no_kubeconfig:
        kube.server(parsed.credentials)  # without an agent each call takes them: no pod would come up
    return Wanted(plugin=_plugin(options.direct), conf=conf, kubeconfig=access)


def _kubeconfig(options: argparse.Namespace) -> bytes | None:
    return None if options.no_kubeconfig else kubeconfig()


def _plugin(direct: bool) -> bytes:
    if direct:
        return launcher().encode()
    from genie.agent import shim

    try:
        return shim.binary().read_bytes()
    except (shim.BuildError, ValueError) as error:
        raise CniError(Code.INTERNAL, f"there is no shim to install: {error}") from error


def launcher() -> str:
    """The script that is genie in direct mode. A runtime waits for it at every pod, so it starts as fast as Python can:

    -I, -S: neither the environment nor `site` (with whatever .pth files the machine has) is looked at; where the
    modules are is written down instead. -B: what there is to compile is compiled now, and a CNI call writes nothing.
    """
    import compileall
    import importlib.util

    package = os.path.dirname(os.path.abspath(__file__))
    compileall.compile_dir(package, quiet=2)  # where that cannot be written, Python compiles at each start
    paths = [os.path.dirname(package)]
    yaml = importlib.util.find_spec("yaml")  # of which a kubeconfig in YAML is read
    if yaml is not None and yaml.origin is not None:
        paths.append(os.path.dirname(os.path.dirname(yaml.origin)))
    return f"""#!{sys.executable} -BIS
import sys
sys.path += {list(dict.fromkeys(paths))!r}
from genie.__main__ import main
sys.exit(main())
"""


EPILOG = """\
examples:
  genie install --direct --conf my.conf       on a node that has Python: genie without an agent. my.conf is a genie.conf
                                              with kubernetes.kubeconfig in it. Again, after genie was upgraded
  genie install --direct --no-kubeconfig      … where there is no Kubernetes
  genie install --remove                      the node as it was before

  What the DaemonSet runs beside the agent, and what it adds to a plain install:
  genie install --keep --after /run/pod/agent --conf /etc/genie/genie.conf --daemonset kube-system/genie

what is put on the node, each file whole or not at all, also over a running one:
  BIN-DIR/genie                 the plugin: the agent's shim, or with --direct a script
  CONF-DIR/genie.d/kubeconfig   in a pod only: how to reach the API server as the pod's service account
  CONF-DIR/00-genie.conf        genie.conf; last, for with it the runtime begins to call genie. Should another file come
                                before it, genie takes an earlier name: the runtime uses the first
  STATE-DIR/install/            which files are genie's, and what was in their places before

It takes root. On a node that a DaemonSet keeps, --once and --remove are refused: delete the DaemonSet, and genie is
removed. Pods with several networks should go before genie does: afterwards the runtime knows only the first network.
More: docs/install.md
"""


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="genie install",
        description="Put genie on this node, ahead of every other configuration in net.d, or take it off again.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add, default = parser.add_argument, Node()
    what = parser.add_argument_group("what to do").add_mutually_exclusive_group()
    what.add_argument("--once", action="store_true", help="install and return (the default)")
    what.add_argument("--keep", action="store_true", help="install, stay, and keep it so until SIGTERM")
    what.add_argument("--remove", action="store_true", help="take genie off the node, which is then as it was before")
    add("--conf", metavar="PATH", default="", help="the genie.conf to install (default: one without settings)")
    add("--direct", action="store_true", help="install genie itself, run by this Python, in place of the agent's shim")
    add(
        "--no-kubeconfig",
        action="store_true",
        help="install no kubeconfig of this pod's service account, or do without any",
    )
    add("--bin-dir", default=default.bin_dir, metavar="DIR", help="where plugins are (default: %(default)s)")
    add("--conf-dir", default=default.conf_dir, metavar="DIR", help="the runtime's net.d (default: %(default)s)")
    add(
        "--state-dir", default=default.state_dir, metavar="DIR",
        help="genie's own; to remove, name the same one (default: %(default)s)",
    )  # fmt: skip
    keep = parser.add_argument_group("with --keep")
    keep.add_argument(
        "--after", metavar="PATH", default="", help="install once a process holds this file: the agent's --ready-file"
    )
    keep.add_argument("--ready-file", metavar="PATH", default="", help="hold this file once genie is installed")
    keep.add_argument(
        "--daemonset", metavar="NAMESPACE/NAME", default="",
        help="when ended, remove genie if this DaemonSet is gone",
    )  # fmt: skip
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """`genie install`; returns the exit status."""
    options = _options(argv)
    logs.setup("info")
    node = Node(bin_dir=options.bin_dir, conf_dir=options.conf_dir, state_dir=options.state_dir)
    try:
        if options.keep:
            Keeper(node, options).run()
            return 0
        check_not_kept(node)
        if options.remove:
            log.info("removed", extra={"fields": {"files": remove(node)}})
        else:
            log.info("installed", extra={"fields": {"files": install(node, read_wanted(options))}})
    except (CniError, OSError) as error:
        log.error(f"cannot {'remove' if options.remove else 'install'}", extra={"fields": {"error": str(error)}})
        return 1
    return 0
