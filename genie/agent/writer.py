"""Annotations on their way to the API server, outside the ADD that made them.

One merged patch a pod, tried until the API server has it, refuses it, or has no such pod any more. The UID goes with
the patch (see kube.patch_annotations), so that a pod made again under the same name is never written to; merge patches
of annotations that are genie's own cannot conflict with anybody else's. What is refused is an Event of the pod. What is
waiting when the agent ends is in the records, out of which `left_over` finds it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from genie.agent.metrics import Metrics
from genie.agent.reporter import Reporter
from genie.kube import MirrorMissingError, Pod, RefusedError, pod_event
from genie.records import Record
from genie.request import arguments
from genie.verbs.network_status import REFUSED, SHORTENED

BACKOFF = (0.1, 15.0)
MIRROR_ATTEMPTS = 20
"""How often a static pod's mirror is looked for: with the pauses between, for some minutes."""

log = logging.getLogger(__name__)
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

    patch: does it, in a thread, and returns why it wrote less than all (see `kube.write_annotations`); raises when it
    could not. What failed is tried again, after what is new: one pod's trouble delays no other pod's status.
    """

    def __init__(self, patch: Callable[[Pod, Mapping[str, str]], str], metrics: Metrics, reporter: Reporter) -> None:
        self._patch, self._metrics, self.reporter = patch, metrics, reporter
        self._new: dict[_Key, _Item] = {}
        self._again: dict[_Key, _Item] = {}
        self._mirrors: dict[_Key, int] = {}  # how often the mirror of a static pod was not there
        self._wait, self._until, self._away = BACKOFF[0], 0.0, False
        self._more = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "writer")
        self._writing = 0
        metrics.unwritten.read = lambda: {(): self.waiting}

    @property
    def waiting(self) -> int:
        return len(self._new) + len(self._again) + self._writing

    def add(self, pod: Pod, annotations: Mapping[str, str]) -> None:
        """Write these, after whatever is waiting for other pods and together with what is waiting for this one."""
        key = (pod.namespace, pod.name, pod.uid)
        _, before = self._again.pop(key) if key in self._again else self._new.get(key, (pod, {}))
        self._new[key] = (pod, {**before, **annotations})
        self._more.set()

    async def run(self) -> None:
        """Write what comes; ends when cancelled."""
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
        """Whether everything was written within that time. For the end of the agent; `run` must be running."""
        deadline = asyncio.get_running_loop().time() + seconds
        while self.waiting and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.02)
        return not self.waiting

    def _next(self) -> dict[_Key, _Item]:
        """The queue whose turn it is; empty if there is nothing to do yet."""
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
        """One attempt: "written", "shortened", "refused", or to be made again: "failed", "away" if nobody answered."""
        key = next(iter(queue))
        pod, annotations = queue.pop(key)
        self._writing = 1
        try:
            why = await asyncio.get_running_loop().run_in_executor(self._thread, self._patch, pod, annotations)
            result = "shortened" if why else "written"
        except RefusedError as error:
            why, result = str(error), "failed" if error.passing else "refused"
            if error.status in (401, 403) and queue is self._new:  # a person has to do something
                self._report(pod, REFUSED, why)
        except MirrorMissingError as error:
            # Its kubelet makes one soon after the API server is back; of a pod that is gone there never is one.
            self._mirrors[key] = self._mirrors.get(key, 0) + 1
            why, result = str(error), "failed" if self._mirrors[key] < MIRROR_ATTEMPTS else "refused"
        except Exception as error:  # whatever it is, it must not end the task that writes
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
            fields = {"pod": f"{pod.namespace}/{pod.name}", "error": why}
            log.warning(_LOGGED[result], extra={"fields": fields})
        return result

    def _report(self, pod: Pod, reason: str, message: str) -> None:
        self.reporter.add(pod_event(pod, reason, message, warning=True))


def _now() -> float:
    return asyncio.get_running_loop().time()


def left_over(
    records: Iterable[tuple[float, Record]], pods: Mapping[tuple[str, str], Pod]
) -> list[tuple[Pod, dict[str, str]]]:
    """The annotations that are in records and not on their pods. For the agent's start; it looks at namespaces.

    Only the newest container of a pod counts, and only if it lives: one whose DEL never came has nothing to report.

    Args:
        records: each with when it was last written, in seconds since 1970.
    """
    newest: dict[tuple[str, str], tuple[float, Record]] = {}
    for when, record in records:
        key = (record.namespace, record.pod)
        if key not in newest or newest[key][0] <= when:
            newest[key] = (when, record)
    found = []
    for key, (when, record) in newest.items():
        pod = pods.get(key)
        if pod is None or not record.complete or not _is_of(record, pod) or not _lives(record, when):
            continue
        missing = {key: value for key, value in record.annotations.items() if pod.annotations.get(key) != value}
        if missing:
            found.append((pod, missing))
    return found


def _is_of(record: Record, pod: Pod) -> bool:
    """Whether the record is of this very pod, and not of one before it; a static pod may have a new mirror."""
    asked = arguments(record.args).get("K8S_POD_UID", "")
    return pod.uid == record.uid or bool(asked and pod.is_it(asked))


def _lives(record: Record, when: float) -> bool:
    """Whether the container's namespace is there. Where the agent cannot see it, all since the node's start do."""
    folder = os.path.dirname(record.netns)
    try:
        return os.stat(record.netns).st_dev != os.stat(folder).st_dev  # else it is the file that it was mounted on
    except OSError:
        return not os.path.isdir(folder) and when >= _booted()


def _booted() -> float:
    """When the node started, in seconds since 1970."""
    with open("/proc/stat", encoding="ascii") as file:
        return next((float(line.split()[1]) for line in file if line.startswith("btime ")), 0.0)
