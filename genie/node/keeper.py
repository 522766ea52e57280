"""`genie install --keep`: keeps genie installed on the node until the pod ends.

It waits until the agent serves, so that the runtime never calls a shim without an agent. Then it installs genie,
restores removed files (patience.py decides when), keeps genie first in net.d and the kubeconfig's token fresh. At the
end it asks the API server for its DaemonSet. If that still exists, as in a rolling update or when a node is drained,
genie stays. If it is gone, no agent will answer the shim any more, and genie is removed from the node.

In a rolling update there are two keepers on a node for a moment. Each holds a file (see locks.py) with a number. The
one with the highest number works, the others wait, and none removes genie while another one keeps it.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from genie import config, kube, locks, removals
from genie.cni.errors import CniError, Code
from genie.event import Event
from genie.log import Complaint, Log
from genie.node.files import Journal, Node, Wanted, changing, install, is_conf, others, out_of_place, remove_changing
from genie.node.patience import LONGEST, Patience
from genie.node.wanted import read_conf, with_conf
from genie.removals import Removals
from genie.select.networks import Directory, rival

log = Log("genie.install")

EVERY = 1.0  # seconds between two checks of the node
REFRESH = 60.0  # seconds between two reads of genie.conf's source and the account's token, which the kubelet renews
ASKS = 3  # requests for the DaemonSet while the API server does not answer


class Claim:
    """A keeper's claim to a node: a numbered file that it holds while it lives."""

    def __init__(self, node: Node) -> None:
        self.node = node
        with changing(node):
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
    """Refuse to change a node by hand if a keeper would undo the change within a second.

    Raises CniError: there is one.
    """
    if _keepers(node):
        raise CniError(
            Code.TRY_AGAIN,
            "genie is kept on this node by its DaemonSet, which would undo this at once: change the DaemonSet or its "
            "ConfigMap instead, or delete it (kubectl --namespace kube-system delete daemonset genie)",
        )


class Keeper:
    """`--keep`: keeps genie installed on the node until the pod ends."""

    def __init__(self, node: Node, options: argparse.Namespace) -> None:
        self.node, self.options = node, options
        self.ending = threading.Event()
        self.sees_daemonset = False
        self.claim: Claim | None = None
        self.complaint = Complaint(log, "cannot install", logging.ERROR)
        self._patience = Patience()
        self._back_at = 0.0  # when to restore genie, by the monotonic clock; 0: it is in place

    def run(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.ending.set())
        self._look_for_daemonset()
        if self._wait():
            self._keep()
        self._leave()

    def _wait(self) -> bool:
        """Wait until genie can work on the node; False if the keeper was ended before."""
        logged = ""
        while missing := self._missing():
            if missing != logged:
                log.info("waiting", **{"for": missing})
                logged = missing
            if self.ending.wait(EVERY):
                return False
        return True

    def _missing(self) -> str:
        """The reason to wait; "" if genie is installed already, because then the runtime calls it in any case."""
        if self.options.after and not locks.is_held(self.options.after):
            return f"the agent, which holds {self.options.after} once it serves"
        journal = Journal(self.node)
        if journal.files or self._wanted(None).conf.get("default_plugin"):
            return ""
        rivals = {os.path.basename(one.source) for one in Directory(self.node.conf_dir).networks() if rival(one)}
        if set(others(self.node, journal)) - rivals:
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
            if not self.claim.is_newest():
                continue
            removed = out_of_place(self.node, wanted.plugin)
            if self._waits(removed) if removed else not due:
                continue
            wanted = self._bring_up_to_date(wanted)
            self._back_at = 0.0

    def _waits(self, removed: str) -> bool:
        """Whether to wait before genie is restored."""
        now = time.monotonic()
        if not self._back_at:  # not seen before
            wait = self._patience.removed(now)
            self._back_at = now + wait
            self._note(removed, wait)
        return now < self._back_at

    def _note(self, removed: str, wait: float) -> None:
        before = removals.read(self.node.state_dir)
        count = 1 + (before.count if before else 0)
        with contextlib.suppress(OSError):  # this file is for people only, and must not stop the keeper
            removals.write(self.node.state_dir, Removals(count=count, why=removed, at=time.time(), wait=wait))
        if self._patience.begins:
            message = (
                f"somebody keeps removing genie from this node: {removed}. genie restores itself, each time later, up "
                f"to {LONGEST / 60:.0f} minutes; until then pods come up without it. If it is Cilium, set "
                "cni.exclusive=false; others: docs/install.md"
            )
            log.warning(message)
            self._report(message)

    def _report(self, message: str) -> None:
        """Write an Event for the node."""
        if not (name := os.environ.get("NODE_NAME")) or not self.options.daemonset:
            return
        what = Event(
            reason="GenieRemoved", message=message, namespace="", name=name, uid=name, kind="Node", warning=True
        )
        try:
            kube.report_event(kube.Client(kube.server(config.Credentials()), timeout=5.0), what, name)
        except CniError as error:
            log.warning("cannot write an Event", error=str(error))

    def _leave(self) -> None:
        gone = self.sees_daemonset and self._is_gone()
        with changing(self.node):
            if self.claim:
                self.claim.drop()
            if not gone:
                return
            if _keepers(
                self.node
            ):  # a keeper of a newer DaemonSet, or of this one during an update: the last keeper removes genie
                log.info("left to another keeper on this node")
                return
            files = remove_changing(self.node)
        log.info("removed", files=files)

    def _bring_up_to_date(self, before: Wanted | None) -> Wanted:
        """Install the current files. A genie.conf that somebody changed on the node stays while the source is
        unchanged."""
        wanted = self._wanted(before)
        try:
            current = self._current_conf() if before and before.conf == wanted.conf else None
            if current:  # without the versions that `install` added
                versions = {key: wanted.conf[key] for key in ("cniVersions",) if key in wanted.conf}
                current = {**{key: value for key, value in current.items() if key != "cniVersions"}, **versions}
            changed = install(self.node, replace(wanted, conf=current or wanted.conf))
            self.complaint.over()
            if changed:
                log.info("installed", files=changed)
        except (CniError, OSError) as error:
            self.complaint.about(error)
        return wanted

    def _wanted(self, before: Wanted | None) -> Wanted:
        """The files to install. Once genie is installed, a genie.conf with a mistake changes nothing: a keeper that
        ended because of it could not remove genie any more.

        Raises CniError: genie.conf is wrong, and there is no earlier one to keep.
        """
        try:
            conf, behind = read_conf(self.options)
        except CniError as error:
            kept = before.conf if before else self._current_conf()
            if kept is None:
                raise
            self.complaint.about(error)
            conf, behind = kept, before.behind if before else ()
        try:
            return with_conf(self.options, conf, behind)
        except CniError as error:  # the account's token cannot be read, for example
            if before is None:
                raise
            self.complaint.about(error)
            return before

    def _current_conf(self) -> Mapping[str, Any] | None:
        for path in Journal(self.node).files:
            if is_conf(self.node, path):
                with contextlib.suppress(CniError):
                    return config.load(path).raw
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
        """Whether the DaemonSet is "there" or "gone"; "" if unknown.

        If all of genie is deleted at once, its account and its rights are deleted, too: after the DaemonSet has been
        seen once, 401 and 403 also count as deleted.
        """
        namespace, _, name = self.options.daemonset.partition("/")
        try:
            client = kube.Client(kube.server(config.Credentials()), timeout=5.0)
            status, data = client.request("GET", f"/apis/apps/v1/namespaces/{namespace}/daemonsets/{name}")
        except CniError as error:
            log.warning("cannot ask for its DaemonSet", error=str(error))
            return ""
        if status == 200:
            return "gone" if data["metadata"].get("deletionTimestamp") else "there"
        if status == 404 or (status in (401, 403) and self.sees_daemonset):
            return "gone"
        return ""
