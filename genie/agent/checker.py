"""CHECK on the agent's own schedule, without plugins: checks a pod's routes, rules and addresses.

containerd never calls CHECK, and CRI-O only after the ADD and when it starts. Routes and rules that genie arranged are
restored if somebody removed them. Changes to a plugin's work, and additions, are reported but not repaired. A pod with
a call in progress is left alone. The same thing is restored at most `MOST` times: after that somebody removes it on
purpose.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from genie.agent.metrics import Counter
from genie.cni.errors import CniError
from genie.cni.fields import packed
from genie.cni.result import Result
from genie.event import Event
from genie.kernel import repair, routes
from genie.kernel.netlink import Netlink
from genie.log import Log
from genie.records import Record, Records
from genie.verbs.collect import has_namespace
from genie.verbs.context import placed

SETTLE = 1.0
"""Seconds until a change is checked again: it may be part of a DEL, or unfinished."""
MOST = 3
"""The limit for repairs in one pod."""
REASON = "NetworkChanged"

log = Log("genie.agent")

_Key = tuple[str, str]


@dataclass
class _Known:
    """The state of one container. addresses: those that it had. reported: reported changes that still exist."""

    addresses: frozenset[str] = frozenset()
    seen: bool = False
    repairs: int = 0
    reported: frozenset[str] = field(default=frozenset())


class Checker:
    """Checks all containers of a node from time to time. Its methods take a while: run them in a thread.

    is_busy: whether a call for this container is being served. counter: has one label, the outcome of a change. report:
    takes an Event. most: returns the limit for repairs in one pod, called at each check.
    """

    def __init__(
        self,
        is_busy: Callable[[str], bool],
        counter: Counter,
        report: Callable[[Event], None],
        most: Callable[[], int],
    ) -> None:
        self._is_busy, self._counter, self._report, self._most = is_busy, counter, report, most
        self.most = 0
        for result in ("repaired", "left"):
            counter.add(0, result)
        self._known: dict[_Key, _Known] = {}

    def look(self, state_dir: str) -> None:
        """Check every container, repair its changes if possible, and report them.

        Raises CniError: the records cannot be read.
        """
        self.most = self._most()
        records = Records(state_dir)
        whole = {one.key: one for one in records if one.complete}
        self._known = {key: self._known.get(key, _Known()) for key in whole}
        changed = [(key, record) for key, record in whole.items() if self._changes(key, record)]
        if changed:
            time.sleep(SETTLE)
        for key, record in changed:
            with suppress(CniError):  # damaged meanwhile: its container's DEL deals with it
                if records.read(*key) == record and self._changes(key, record):
                    self._act(key, record)

    def _changes(self, key: _Key, record: Record) -> list[str]:
        """The changes that were not reported yet. Empty if the namespace cannot be read."""
        if self._is_busy(record.container_id) or has_namespace(record.netns, on_node=False) is not True:
            return []
        known = self._known[key]
        try:
            with Netlink(record.netns) as kernel:
                there = _addresses(kernel, record)
                drift = routes.drift(_placed(record), routes.look(kernel), record.arranged) if record.arranged else []
        except OSError:  # it is going
            return []
        if not known.seen:  # an address that the plugin reported but never set is not a change
            known.seen, known.addresses = True, there
        found = [*drift, *(f"missing: address {address}" for address in sorted(known.addresses - there))]
        known.reported &= frozenset(found)
        return [text for text in found if text not in known.reported]

    def _act(self, key: _Key, record: Record) -> None:
        known = self._known[key]
        done: list[str] = []
        if record.arranged and known.repairs < self.most:
            with suppress(OSError), Netlink(record.netns) as kernel:
                done = repair.repair(kernel, _placed(record), record.arranged)
        if done:
            known.repairs += 1
            last = "" if known.repairs < self.most else "; genie will not do so again for this pod"
            self._say(record, "repaired", f"put back: {', '.join(done)}{last}", len(done))
        if left := self._changes(key, record):
            known.reported |= frozenset(left)
            self._say(record, "left", f"left as it is: {', '.join(left)}", len(left))

    def _say(self, record: Record, result: str, what: str, count: int) -> None:
        self._counter.add(count, result)
        message = f"somebody changed the pod's network; {what}"
        log.warning("somebody changed a pod's network", pod=record.title, container=record.container_id, what=what)
        if record.pod:
            self._report(
                Event(
                    reason=REASON, message=message, namespace=record.namespace, name=record.pod, uid=record.uid,
                    warning=True,
                )
            )  # fmt: skip


def _placed(record: Record) -> list[routes.Placed]:
    return [placed(attached, attached.result or Result()) for attached in record.attached]


def _addresses(kernel: Netlink, record: Record) -> frozenset[str]:
    """The addresses in the networks' results that the pod has."""
    there = {address.packed for address in kernel.addresses()}
    return frozenset(ip.plain for attached in record.attached for ip in attached.ips if packed(ip.plain) in there)
