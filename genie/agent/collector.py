"""The agent's collection of orphans: deletes them by the shim of another call.

containerd calls no GC, and a runtime that lost its state calls no DEL. So from time to time the agent looks for records
of namespaces that are gone. If a namespace stays away for a while, and the API server does not have the pod, the record
is an orphan. Its plugins must run on the node, and the agent runs in a pod. So its DEL is served beside the next call
that has a namespace, by that call's shim. That namespace also proves that this agent sees the node's namespaces, so
that a missing one is really gone.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from genie.agent.metrics import Counter
from genie.cni.errors import CniError
from genie.cni.execute import Executor, Outcome, PassingExecutor, PluginCall
from genie.config import Conf
from genie.kube import Kube
from genie.log import Log
from genie.records import Record, Records, attachments
from genie.request import Request
from genie.serve import serve
from genie.verbs import collect, leases

EVERY = 60.0
"""Seconds between two checks of the records."""
PATIENCE = 300.0
"""Seconds for which a namespace must be gone: the runtime may be about to call DEL."""
LIMIT = 5.0
"""Seconds that all plugins of an orphan may take: another call waits for them."""
BACKOFF = (60.0, 3600.0)
"""Seconds until an orphan that cannot be deleted is tried again."""
UNFINISHED = 3600.0
"""Seconds after which an unfinished record counts as abandoned."""

log = Log("genie.agent")

_Key = tuple[str, str]


@dataclass
class _Suspect:
    """A record without a namespace. due: when it may be deleted, by time.monotonic. orphan: its pod is gone, too."""

    record: Record
    due: float
    wait: float = BACKOFF[0]
    orphan: bool = False


class Collector:
    """The orphans of a node.

    is_busy: whether a call for this container is being served. counter: has one label, the result.
    """

    def __init__(self, kube: Kube, is_busy: Callable[[str], bool], counter: Counter) -> None:
        self._kube, self._is_busy, self._counter = kube, is_busy, counter
        self._suspects: dict[_Key, _Suspect] = {}
        self._deleting = False

    @property
    def waiting(self) -> bool:
        """Whether there is something to do."""
        return any(suspect.orphan for suspect in self._suspects.values())

    def look(self, state_dir: str) -> None:
        """Find records without a namespace, and remove unfinished ones. It takes a while: run it in a thread."""
        records, now = list(Records(state_dir)), time.monotonic()
        gone = [one for one in records if collect.has_namespace(one.netns, on_node=False) is False]
        self._suspects = {
            one.key: replace(self._suspects.get(one.key) or _Suspect(one, now + PATIENCE), record=one) for one in gone
        }
        done = leases.mend([one.network for one in attachments(records)], records)
        done += [f"{path}: removed, an unfinished record" for path in Records(state_dir).sweep(UNFINISHED)]
        for line in done:
            log.info("collected", what=line)

    async def judge(self) -> None:
        """Find out which of these records have no pod any more. Never raises."""
        for suspect in list(self._suspects.values()):
            if not suspect.orphan and suspect.due <= time.monotonic():
                suspect.orphan = not await collect.lives(suspect.record, self._kube, on_node=False)

    async def beside(self, request: Request, executor: Executor, conf: Conf) -> None:
        """Delete one orphan, if there is one, through the shim of this call. Never raises."""
        if self._deleting or collect.has_namespace(request.netns, on_node=False) is not True:
            return
        self._deleting = True
        try:
            if suspect := self._next(os.path.dirname(request.netns)):
                await self._delete(suspect, request, executor, conf)
        except CniError as error:
            log.warning("cannot collect", error=str(error))
        finally:
            self._deleting = False

    def _next(self, folder: str) -> _Suspect | None:
        """The next orphan that is due, with its namespace in a folder that the agent is known to see."""
        now = time.monotonic()
        for suspect in self._suspects.values():
            record = suspect.record
            if (
                suspect.orphan
                and suspect.due <= now
                and os.path.dirname(record.netns) == folder
                and not self._is_busy(record.container_id)
                and collect.has_namespace(record.netns, on_node=False) is False
            ):
                suspect.due = now + suspect.wait
                suspect.wait = min(suspect.wait * 2, BACKOFF[1])
                return suspect
        return None

    async def _delete(self, suspect: _Suspect, request: Request, executor: Executor, conf: Conf) -> None:
        record = suspect.record
        if Records(conf.state_dir).read(*record.key) is None:
            return  # its DEL came meanwhile
        limited = _Limited(executor, time.monotonic() + LIMIT)
        reply = await serve(collect.deletion(record, request.env, request.stdin), self._kube, limited, None)
        result = "ok" if reply.status == 0 else "error"
        self._counter.add(1, result)
        if result == "ok":
            self._suspects.pop(record.key, None)
        fields = {"pod": record.title, "container": record.container_id, "result": result}
        if "error" in reply.story:
            fields["error"] = str(reply.story["error"])
        log.log(logging.INFO if result == "ok" else logging.WARNING, "collected", **fields)


class _Limited(PassingExecutor):
    """An executor with a deadline. until: by time.monotonic."""

    def __init__(self, inner: Executor, until: float) -> None:
        super().__init__(inner)
        self._until = until

    async def run(self, call: PluginCall) -> Outcome:
        left = self._until - time.monotonic()
        if left <= 0:
            return Outcome(status=-1, error="not run: the collection of this container took too long already")
        return await super().run(replace(call, timeout=min(left, call.timeout or left)))
