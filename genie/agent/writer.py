"""Annotations on their way to the API server, outside the ADD that made them.

One merged patch a pod, tried until the API server has it, or has no such pod any more. The UID goes with the patch
(see kube.patch_annotations), so that a pod made again under the same name is never written to; merge patches of
annotations that are genie's own cannot conflict with anybody else's. What is waiting when the agent ends is in the
records, out of which `make_up` puts it here again.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from genie.agent.metrics import Metrics
from genie.agent.reporter import Reporter
from genie.cni.errors import CniError, Code
from genie.kube import Client, Pod, patch_annotations, read_pod
from genie.records import Record

BACKOFF = (0.1, 15.0)

log = logging.getLogger(__name__)


class Writer:
    """A queue of pods with annotations to be written. patch: does it, in a thread; raises when it could not."""

    def __init__(self, patch: Callable[[Pod, Mapping[str, str]], None], metrics: Metrics, reporter: Reporter) -> None:
        self._patch, self._metrics, self.reporter = patch, metrics, reporter
        self._waiting: dict[tuple[str, str, str], tuple[Pod, dict[str, str]]] = {}
        self._more = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "writer")
        self._writing = 0
        metrics.unwritten.read = lambda: {(): self.waiting}

    @property
    def waiting(self) -> int:
        return len(self._waiting) + self._writing

    def add(self, pod: Pod, annotations: Mapping[str, str]) -> None:
        """Write these, after whatever is waiting for other pods and together with what is waiting for this one."""
        key = (pod.namespace, pod.name, pod.uid)
        _, before = self._waiting.get(key, (pod, {}))
        self._waiting[key] = (pod, {**before, **annotations})
        self._more.set()

    async def run(self) -> None:
        """Write what comes; ends when cancelled."""
        wait = BACKOFF[0]
        while True:
            while not self._waiting:
                self._more.clear()
                await self._more.wait()
            if await self._write_one():
                wait = BACKOFF[0]
                continue
            await asyncio.sleep(wait * random.uniform(0.5, 1.0))
            wait = min(wait * 2, BACKOFF[1])

    async def flush(self, seconds: float) -> bool:
        """Whether everything was written within that time. For the end of the agent; `run` must be running."""
        deadline = asyncio.get_running_loop().time() + seconds
        while self.waiting and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.02)
        return not self.waiting

    async def _write_one(self) -> bool:
        key = next(iter(self._waiting))
        pod, annotations = self._waiting.pop(key)
        self._writing = 1
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._patch, pod, annotations)
        except Exception as error:  # whatever it is, it must not end the task that writes
            # To the end of the queue: what is wrong with one pod must not keep the others waiting.
            newer = self._waiting.pop(key, (pod, {}))[1]
            self._waiting[key] = (pod, {**annotations, **newer})
            self._metrics.patches.add(1, "failed")
            fields = {"pod": f"{pod.namespace}/{pod.name}", "error": str(error) or type(error).__name__}
            log.warning("annotations could not be written; trying again", extra={"fields": fields})
            return False
        finally:
            self._writing = 0
        self._metrics.patches.add(1, "written")
        return True


def write(client: Client, pod: Pod, annotations: Mapping[str, str]) -> None:
    """One attempt, which has also succeeded when there is no such pod any more.

    How a patch for another UID is refused differs (a conflict, 409; kube-apiserver 1.35 has 422, "field is
    immutable"), so after any failure it is asked whether the pod is still there.

    Raises:
        CniError: it is there, or it could not be asked.
    """
    try:
        patch_annotations(client, pod, annotations)
    except CniError as refused:
        try:
            read_pod(client, pod.namespace, pod.name, pod.uid)
        except CniError as missing:
            if missing.code == Code.UNKNOWN_CONTAINER:
                return
        raise refused


def make_up(records: Iterable[Record], pods: Mapping[tuple[str, str], Pod], writer: Writer) -> int:
    """Queue the annotations that are in records and not on pods; returns for how many pods. For the agent's start."""
    count = 0
    for record in records:
        pod = pods.get((record.namespace, record.pod))
        if not record.complete or pod is None or pod.uid != record.uid:
            continue
        missing = {key: value for key, value in record.annotations.items() if pod.annotations.get(key) != value}
        if missing:
            writer.add(pod, missing)
            count += 1
    return count
