"""Sends Events to the API server in the background. Repeated Events are counted, and their number is limited.

A thread of its own sends them, so no call and no annotation waits for one. Users cannot cause any number of Events: a
token bucket limits an object's Events, another one all of a node's, and the queue for when the API server is away is
limited by number and age. Dropped Events are counted in `genie_events_total`.
"""

from __future__ import annotations

import random
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from genie import event as events
from genie.agent.metrics import Counter
from genie.cni.errors import CniError
from genie.event import Event
from genie.kube import Client, RefusedError, count_event, create_event
from genie.log import Complaint, Log

BACKOFF = (0.2, 30.0)
LONGEST_WAIT = 600.0
"""Seconds for which an Event waits for the API server."""
WAITING = 256
KNOWN = 512
"""The limit for remembered Events, and objects: a repetition of a forgotten Event is a new Event."""
OF_ONE = (40.0, 1 / 60)
"""The limits for Events of one object: this many at once (a pod has at most 32 networks), then this many a second."""
OF_ALL = (200.0, 5.0)

log = Log(__name__)


@dataclass
class _Bucket:
    """A token bucket: this many at once, and this many a second."""

    most: float
    rate: float
    at: float
    left: float = field(init=False)

    def __post_init__(self) -> None:
        self.left = self.most

    def take(self, now: float) -> bool:
        self.left = min(self.most, self.left + max(0.0, now - self.at) * self.rate)
        self.at = now
        if self.left < 1:
            return False
        self.left -= 1
        return True


@dataclass
class _Series:
    """One Event, with its count. sent: its name on the API server."""

    name: str
    first: float
    last: float
    count: int = 0
    sent: bool = False


class Reporter:
    """A queue of Events. Its methods may be called in any thread, and return at once.

    ask: runs a request to the API server, like `Asker.ask`; in the reporter's thread. counter: has one label.
    """

    def __init__(self, ask: Callable[[Callable[[Client], None]], None], node: str, counter: Counter) -> None:
        self._ask, self._node, self._counter = ask, node, counter
        for result in ("written", "refused", "dropped"):
            counter.add(0, result)
        self._more = threading.Condition()
        self._known: OrderedDict[Event, _Series] = OrderedDict()
        self._waiting: dict[Event, _Series] = {}
        self._all = _Bucket(*OF_ALL, time.monotonic())
        self._of: OrderedDict[tuple[str, str, str], _Bucket] = OrderedDict()
        self._thread: threading.Thread | None = None
        self._sending = False
        self._complaint = Complaint(log, "an Event could not be written")

    def add(self, event: Event) -> None:
        """Queue this Event, unless there are too many."""
        with self._more:
            series = self._series(event)
            if event in self._waiting:
                return
            if not self._permitted(event):
                self._counter.add(1, "dropped")
                return
            self._waiting[event] = series
            if len(self._waiting) > WAITING:
                # Normal Events are dropped first.
                del self._waiting[next((each for each in self._waiting if not each.warning), next(iter(self._waiting)))]
                self._counter.add(1, "dropped")
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)
                self._thread.start()
            self._more.notify_all()

    def flush(self, seconds: float) -> bool:
        """Wait until all are sent; returns whether they were within this time. For the end of the agent; it blocks."""
        with self._more:
            return self._more.wait_for(lambda: not self._waiting and not self._sending, seconds)

    def _series(self, event: Event) -> _Series:
        now = time.time()
        series = self._known.setdefault(event, _Series(events.object_name(event), now, now))
        self._known.move_to_end(event)
        if len(self._known) > KNOWN:
            self._known.popitem(last=False)
        series.count, series.last = series.count + 1, now
        return series

    def _permitted(self, event: Event) -> bool:
        now = time.monotonic()
        bucket = self._of.setdefault((event.kind, event.namespace, event.name), _Bucket(*OF_ONE, now))
        if len(self._of) > KNOWN:
            self._of.popitem(last=False)
        return bucket.take(now) and self._all.take(now)

    def _run(self) -> None:
        wait = BACKOFF[0]
        while True:
            with self._more:
                self._more.wait_for(lambda: self._waiting)
                event = next(iter(self._waiting))
                series = self._waiting.pop(event)
                self._sending = True
            result = self._send(event, series)
            with self._more:
                self._sending = False
                if result == "failed" and time.time() - series.last < LONGEST_WAIT:
                    self._waiting.setdefault(event, series)
                else:
                    self._counter.add(1, "dropped" if result == "failed" else result)
                self._more.notify_all()
            if result != "failed":
                wait = BACKOFF[0]
                continue
            time.sleep(wait * random.uniform(0.5, 1.0))
            wait = min(wait * 2, BACKOFF[1])

    def _send(self, event: Event, series: _Series) -> str:
        """One attempt: "written", "refused" (a retry would be, too), or "failed" (a retry may succeed)."""
        try:
            self._ask(lambda client: self._write(client, event, series))
        except RefusedError as error:
            if error.passing and error.status != 403:  # its namespace may be ending
                return "failed"
            self._complaint.about(error)
            return "refused"
        except CniError:
            return "failed"  # the API server is away, as the watches have logged
        except Exception as error:  # no error may end this thread
            self._complaint.about(error)
            return "refused"
        return "written"

    def _write(self, client: Client, event: Event, series: _Series) -> None:
        last, count = series.last, series.count
        if series.sent and count_event(client, event, series.name, last, count):
            return
        create_event(client, events.body(event, series.name, self._node, first=series.first, last=last, count=count))
        series.sent = True
