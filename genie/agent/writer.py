"""Writes annotations to the API server in the background, after the ADD.

There is one merged patch for each pod. It is retried until the API server accepts it, refuses it, or has no such pod
any more. The patch has the UID (see kube.patch_annotations), so that a new pod of the same name is never changed. Merge
patches of genie's own annotations cannot conflict with other clients'. A refusal becomes an Event of the pod. If the
agent ends before a write, `left_over` finds the annotations in the records.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from genie.agent.metrics import Metrics
from genie.agent.reporter import Reporter
from genie.kube import MirrorMissingError, Pod, RefusedError, pod_event
from genie.log import Log
from genie.records import Record
from genie.request import arguments
from genie.verbs.collect import has_namespace
from genie.verbs.network_status import REFUSED, SHORTENED

BACKOFF = (0.1, 15.0)
MIRROR_ATTEMPTS = 20
"""The attempts to find a static pod's mirror: with the pauses between them, some minutes."""

log = Log(__name__)
_Key = tuple[str, str, str]
_Item = tuple[Pod, dict[str, str]]
_REASONS = {"refused": REFUSED, "shortened": SHORTENED}
_LOGGED = {
    "shortened": "annotations did not fit; less was written",
    "refused": "annotations were refused",
    "failed": "annotations could not be written; trying again",
    "away": "annotations could not be written; trying again",
}


class Writer:
    """A queue of pods with annotations to be written.

    patch: writes them, in a thread, and returns why it wrote less than all (see `kube.write_annotations`); raises if it
    failed. Failed writes are retried after new ones: one pod's problem does not delay another pod's status.
    """

    def __init__(self, patch: Callable[[Pod, Mapping[str, str]], str], metrics: Metrics, reporter: Reporter) -> None:
        self._patch, self._metrics, self.reporter = patch, metrics, reporter
        self._new: dict[_Key, _Item] = {}
        self._again: dict[_Key, _Item] = {}
        self._mirrors: dict[_Key, int] = {}  # attempts without a mirror of the static pod
        self._wait, self._until, self._away = BACKOFF[0], 0.0, False
        self._more = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "writer")
        self._writing = 0
        metrics.unwritten.read = lambda: {(): self.waiting}

    @property
    def waiting(self) -> int:
        return len(self._new) + len(self._again) + self._writing

    def add(self, pod: Pod, annotations: Mapping[str, str]) -> None:
        """Queue these annotations, after those of other pods and merged with those that wait for this pod."""
        key = (pod.namespace, pod.name, pod.uid)
        _, before = self._again.pop(key) if key in self._again else self._new.get(key, (pod, {}))
        self._new[key] = (pod, {**before, **annotations})
        self._more.set()

    async def run(self) -> None:
        """Write queued annotations; ends when cancelled."""
        while True:
            queue = self._next()
            if queue:
                result = await self._write_one(queue)
                self._pace(result, again=queue is self._again)
                continue
            self._more.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._more.wait(), self._until - _now() if self.waiting else None)

    async def flush(self, seconds: float) -> bool:
        """Wait until all is written; returns whether it was within this time. For the end of the agent; needs `run`."""
        deadline = _now() + seconds
        while self.waiting and _now() < deadline:
            await asyncio.sleep(0.02)
        return not self.waiting

    def _next(self) -> dict[_Key, _Item]:
        """The queue to take next; empty if there is nothing to do yet."""
        due = _now() >= self._until
        if self._new and (due or not self._away):
            return self._new
        return self._again if due else {}

    def _pace(self, result: str, *, again: bool) -> None:
        if result in ("failed", "away"):
            self._until, self._away = _now() + self._wait * random.uniform(0.5, 1.0), result == "away"
            self._wait = min(self._wait * 2, BACKOFF[1])
        elif again or self._away:
            self._until, self._wait, self._away = 0.0, BACKOFF[0], False

    async def _write_one(self, queue: dict[_Key, _Item]) -> str:
        """One attempt: "written", "shortened", "refused", or to be repeated: "failed", "away" if the server did not
        answer.
        """
        key = next(iter(queue))
        pod, annotations = queue.pop(key)
        self._writing = 1
        try:
            why = await asyncio.get_running_loop().run_in_executor(self._thread, self._patch, pod, annotations)
            result = "shortened" if why else "written"
        except RefusedError as error:
            why, result = str(error), "failed" if error.passing else "refused"
            if error.status in (401, 403) and queue is self._new:  # an administrator must act
                self._report(pod, REFUSED, why)
        except MirrorMissingError as error:
            # The kubelet makes one soon after the API server is back; for a pod that is gone, it never does.
            self._mirrors[key] = self._mirrors.get(key, 0) + 1
            why, result = str(error), "failed" if self._mirrors[key] < MIRROR_ATTEMPTS else "refused"
        except Exception as error:  # no error may end the task that writes
            why, result = str(error) or type(error).__name__, "away"
        finally:
            self._writing = 0
        if result not in ("failed", "away"):
            self._mirrors.pop(key, None)
        self._metrics.patches.add(1, "failed" if result == "away" else result)
        if result in ("failed", "away"):
            later = self._new if key in self._new else self._again
            later[key] = (pod, {**annotations, **later.get(key, (pod, {}))[1]})
        elif result in _REASONS:
            self._report(pod, _REASONS[result], why)
        if why:
            log.warning(_LOGGED[result], pod=f"{pod.namespace}/{pod.name}", error=why)
        return result

    def _report(self, pod: Pod, reason: str, message: str) -> None:
        self.reporter.add(pod_event(pod, reason, message, warning=True))


def _now() -> float:
    return asyncio.get_running_loop().time()


def left_over(
    records: Iterable[tuple[float, Record]], pods: Mapping[tuple[str, str], Pod]
) -> list[tuple[Pod, dict[str, str]]]:
    """The annotations in records that are not on their pods. For the agent's start; it checks namespaces.

    Only the newest container of a pod that lives counts: a dead one without a DEL has nothing to report, and may be the
    newest by a clock that was fast.

    records: each with when it was last written, in seconds since 1970.
    """
    newest: dict[tuple[str, str], tuple[float, Record]] = {}
    for when, record in records:
        key = (record.namespace, record.pod)
        if (key not in newest or newest[key][0] <= when) and _lives(record, when):
            newest[key] = (when, record)
    found = []
    for key, (_, record) in newest.items():
        pod = pods.get(key)
        if pod is None or not record.complete or not _is_of(record, pod):
            continue
        missing = {key: value for key, value in record.annotations.items() if pod.annotations.get(key) != value}
        if missing:
            found.append((pod, missing))
    return found


def _is_of(record: Record, pod: Pod) -> bool:
    """Whether the record is this pod's, and not an earlier one's; a static pod may have a new mirror."""
    asked = arguments(record.args).get("K8S_POD_UID", "")
    return pod.uid == record.uid or bool(asked and pod.is_it(asked))


def _lives(record: Record, when: float) -> bool:
    """Whether the container's namespace exists. If it cannot be seen, every record since the node's start counts."""
    there = has_namespace(record.netns, on_node=False)
    return (not os.path.isdir(os.path.dirname(record.netns)) and when >= _booted()) if there is None else there


def _booted() -> float:
    """When the node started, in seconds since 1970."""
    with open("/proc/stat", encoding="ascii") as file:
        return next((float(line.split()[1]) for line in file if line.startswith("btime ")), 0.0)
