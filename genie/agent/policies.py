"""Network policies on this node: sets the rules of each pod during its ADD, and changes them when anything changes that
they depend on.

Watched at first: the two kinds of policies. The modules of genie.policy are imported, and other pods and namespaces are
watched, only when there is a policy that needs them. A thread does all of the work; an ADD that no policy selects waits
for nothing. Each pod has a lock, so rules of an ADD and of a change never overtake each other.

If the rules cannot be set, the pod goes on without them (an Event and a metric report it), unless one of its policies
has the annotation `genie.io/fail: closed`. docs/policy.md describes the rest.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from sys import intern
from typing import TYPE_CHECKING, Any, TypeVar

from genie.agent.cache import BUDGET, CachedKube, Connect, Watch
from genie.agent.metrics import Metrics
from genie.agent.sieve import Wanted
from genie.cni.errors import CniError, Code
from genie.event import Event
from genie.kube import FAIL, GENIE_POLICY, POLICY_FOR, Pod, pod_event
from genie.log import Log
from genie.records import Record, Records
from genie.verbs.collect import has_namespace
from genie.verbs.context import Context
from genie.verbs.network_status import NETWORK_STATUS

if TYPE_CHECKING:
    from genie.policy.model import Policy, Range
    from genie.policy.rules import Interface
    from genie.policy.world import Workload, World

GROUP = "/apis/k8s.cni.cncf.io"
SETTLE = 0.03
"""Seconds to wait after a change for others that belong to it."""
LOOK = 60.0
"""Seconds between two checks of all pods' rules; also until rules that could not be set are tried again."""
ADDRESSES_MAX = 256
"""The limit for one pod's addresses as a peer."""
PEERS_SIZE = 16 << 20
"""The limit for all peers, in bytes: some 20,000 with a few labels and addresses."""
RELEASED = 256
"""The number of containers that are known to be deleted; more than there can be DELs at once."""
LABELS_MAX = 1000
"""The limit for labels of peers that are kept once for all pods that have them."""
MARK = ".policies"
"""A file beside the records: pods of this node may have rules, from this agent or an earlier one."""
BAD, NOT_SET = "PolicyInvalid", "PolicyNotApplied"
"""Reasons of Events: of a policy, and of a pod."""

_POLICY_NOTES = (POLICY_FOR, FAIL)
_GENIE_NOTES = (*GENIE_POLICY, FAIL)
_META = dict.fromkeys(("namespace", "name", "uid", "resourceVersion"), True)
_MULTI: Wanted = {"metadata": {**_META, "annotations": dict.fromkeys(_POLICY_NOTES, True)}, "spec": True}
_NOTED: Wanted = {"metadata": {**_META, "annotations": dict.fromkeys(_GENIE_NOTES, True)}}
_LABELLED: Wanted = {"metadata": {**_META, "labels": True}}
_PEER: Wanted = {
    "metadata": {**_META, "labels": True, "annotations": {NETWORK_STATUS: True}},
    "spec": {"nodeName": True, "containers": True, "initContainers": True},
}

log = Log("genie.agent")

T = TypeVar("T")
_Item = Mapping[str, Any]


@dataclass
class _Guarded:
    """A container of this node. interfaces: name, and name of its network in the pod's status. rules: as set; () if it
    has none, None if that is not known. seen: a hash of the kernel's listing of them, once it was read.
    """

    namespace: str
    pod: str
    uid: str
    netns: str
    interfaces: tuple[tuple[str, str], ...]
    labels: Mapping[str, str] | None = None
    rules: tuple[Interface, ...] | None = None
    seen: str = ""
    gone: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def title(self) -> str:
        """The pod's name, for people."""
        return f"{self.namespace}/{self.pod}"


@dataclass(frozen=True)
class _Interest:
    """What must be known of other pods. keys: of their labels. networks: names as in a pod's status. labels: those that
    were found, each once: most pods have the same as another.
    """

    keys: frozenset[str] = frozenset()
    networks: frozenset[str] = frozenset()
    ports: bool = False
    namespaces: bool = False
    labels: dict[tuple[tuple[str, str], ...], Mapping[str, str]] = field(default_factory=dict, compare=False)

    def kept(self, labels: Mapping[str, str]) -> Mapping[str, str]:
        found = tuple((key, labels[key]) for key in self.keys if key in labels)
        if len(self.labels) > LABELS_MAX:
            self.labels.clear()
        return self.labels.setdefault(found, dict(found))

    def covers(self, other: _Interest) -> bool:
        return self.keys >= other.keys and self.networks >= other.networks and self.ports >= other.ports


class Policies:
    """Implements `verbs.context.Guard`. report: takes an Event.

    _change, _policy_change: another object after each change, of anything and of policies. _of, _of_policies: those
    that the world is of.
    """

    def __init__(
        self,
        connect: Connect,
        *,
        node: str,
        kube: CachedKube,
        metrics: Metrics,
        report: Callable[[Event], None],
        state_dir: str,
    ) -> None:
        self._connect, self._node, self._kube, self._metrics, self._report = connect, node, kube, metrics, report
        self._records = Records(state_dir)
        self._sources: list[Watch[Any]] = [
            Watch(f"multi-networkpolicies {version}", f"{GROUP}/{version}/multi-networkpolicies", connect, _keep_multi,
                  _MULTI, changed=self._policies_changed)
            for version in ("v1beta1", "v1beta2")
        ] + [
            Watch("networkpolicies", "/apis/networking.k8s.io/v1/networkpolicies", connect, _keep_noted, _NOTED,
                  metadata_only=True, changed=self._policies_changed)
        ]  # fmt: skip
        self._namespaces: Watch[_Item] | None = None
        self._peers: Watch[Workload] | None = None
        self._interest = _Interest()
        self._parsed: dict[tuple[str, str, str], tuple[_Item, tuple[Policy, ...]]] = {}
        self._reported: dict[tuple[str, str, str], str] = {}
        self._here: dict[tuple[str, str], _Guarded] = {}
        self._released = deque[tuple[str, str]](maxlen=RELEASED)
        self._world: World | None = None
        self._begun = False
        self._mark = f"{state_dir}/{MARK}"
        self._snapshot = threading.Lock()
        self._dirty, self._stopped = threading.Event(), threading.Event()
        self._change = self._policy_change = object()
        self._of = self._of_policies = object()
        self._setting = ThreadPoolExecutor(4, "policy")
        for result in ("ok", "failed", "repaired"):
            metrics.policy_rules.add(0, result)
        metrics.policies.read = self._counts

    def start(self) -> None:
        self._kube.pods.changed = self._changed
        for watch in self._sources:
            watch.start()
        threading.Thread(target=self._run, name="policies", daemon=True).start()

    def stop(self) -> None:
        """The rules stay in the pods."""
        self._stopped.set()
        self._dirty.set()
        for watch in (*self._sources, *self._others()):
            if watch is not None:
                watch.stop()
        self._setting.shutdown(wait=False, cancel_futures=True)

    def synced(self) -> bool:
        """Whether the policies have been listed once."""
        return all(watch.listed.is_set() for watch in self._sources)

    @property
    def active(self) -> bool:
        """Whether there is any policy."""
        return any(watch.items or watch.overflowing for watch in self._sources)

    # --- what the verbs call

    async def protect(self, call: Context, pod: Pod, record: Record) -> None:
        if not pod.name or not (self.active or self._begun):
            return  # `_update` finds its record
        while record.key in self._released:  # the runtime may add what it has deleted
            self._released.remove(record.key)
        guarded = self._here[record.key] = _guarded(record, rules=())
        if not self.active:
            return
        why = ""
        try:
            guarded.labels = await self._kube.labels(pod)
        except CniError as error:
            why = f"its labels are not known: {error.msg}"
        known = self._world if self._of_policies is self._policy_change else None  # the other pods do not matter
        if known and guarded.labels is not None and known.isolates_none(pod.namespace, guarded.labels):
            return
        why = why or await call.executor.in_thread(lambda: self._set(guarded, call.request.entrance))
        if not why:
            return
        call.story["policy"] = why
        if self._world and any(each.closed and _selects(each, guarded) for each in self._world.policies):
            raise CniError(Code.TRY_AGAIN, f"its network policies cannot be set, and one of them fails closed: {why}")
        self._report(pod_event(pod, NOT_SET, f"its network policies could not be set: {why}", warning=True))

    async def release(self, call: Context) -> None:
        key = (call.request.container_id, call.request.ifname)
        self._released.append(key)
        guarded = self._here.pop(key, None)
        if guarded is None:
            return
        guarded.gone = True  # nobody sets its rules any more; who has the lock already may still do it
        if call.request.netns and (guarded.lock.locked() or guarded.rules != ()):
            from genie.policy import apply

            def remove() -> None:
                with guarded.lock, suppress(OSError, apply.ApplyError):
                    if guarded.rules != ():
                        apply.replace(call.request.entrance, "")

            await call.executor.in_thread(remove)

    # --- the thread

    def _policies_changed(self) -> None:
        self._policy_change = object()
        self._changed()

    def _changed(self) -> None:
        self._change = object()
        self._dirty.set()

    def _run(self) -> None:
        looked = time.monotonic()
        while not self._stopped.is_set():
            self._dirty.wait(max(LOOK - (time.monotonic() - looked), 0.0))
            if self._stopped.is_set():
                return
            try:
                if self._dirty.is_set():
                    time.sleep(SETTLE)
                    self._dirty.clear()
                    self._update()
                if time.monotonic() - looked >= LOOK:
                    looked = time.monotonic()
                    self._update()  # what could not be set is tried again
                    self._each(self._check)
            except Exception as error:  # go on after any error: nothing else would enforce policies
                log.error("network policies could not be updated", exc_info=True, error=str(error))
                time.sleep(1.0)
                self._dirty.set()

    def _update(self) -> None:
        """Set the rules of all pods of this node anew where they change. Only when everything is known: the start of an
        agent changes nothing.
        """
        if not self.synced() or not (self.active or self._begun or os.path.exists(self._mark)):
            return
        if self.active and not os.path.exists(self._mark):
            with (
                suppress(OSError),
                open(self._mark, "wb"),
            ):  # a full disk: rules come first, and the next look tries again
                pass
        if not self._begun:
            for record in self._records:  # containers from before the first policy, or before the agent's start
                self._adopt(record.key, _guarded(record))
            self._begun = True
        world = self._current()
        watches = (*self._sources, *self._others())
        if not all(watch is None or (watch.listed.is_set() and not watch.overflowing) for watch in watches):
            return  # nobody switches policies off by making too many of them
        world.used.clear()
        failed = self._each(lambda guarded: self._set(guarded, guarded.netns))
        world.forget_unused()
        self._report_bad(world.policies)
        if not (self.active or world.policies or any(failed)):  # a policy may have gone while its rules were set
            with suppress(OSError):
                os.unlink(self._mark)

    def _adopt(self, key: tuple[str, str], guarded: _Guarded) -> None:
        """Look after a container that has a record, unless its DEL is on its way."""
        if self._here.setdefault(key, guarded) is guarded and key in self._released:
            self._here.pop(key, None)

    def _others(self) -> tuple[Watch[Any] | None, ...]:
        return (self._peers, self._namespaces)

    def _report_bad(self, policies: Iterable[Policy]) -> None:
        """An Event for each malformed policy, from the nodes with pods of its namespace."""
        here = {guarded.namespace for guarded in self._here.values()}
        for each in policies:
            key = (each.kind, each.namespace, each.name)
            if each.namespace not in here or self._reported.get(key, "") == each.error:
                continue
            self._reported[key] = each.error
            if each.error:
                log.error("a network policy is malformed", error=each.error)
                self._report(
                    Event(
                        reason=BAD, message=each.error, namespace=each.namespace, name=each.name, uid=each.uid,
                        kind=each.kind, warning=True,
                    )
                )  # fmt: skip

    def _each(self, work: Callable[[_Guarded], T]) -> list[T]:
        return list(self._setting.map(work, list(self._here.values())))

    def _current(self) -> World:
        """The present state; made anew after a change."""
        from genie.policy.world import World

        with self._snapshot:
            if self._world and (self._of is self._change or any(watch.overflowing for watch in self._sources)):
                return self._world
            change, of_policies = self._change, self._policy_change  # before it looks: a change meanwhile is another
            before, policies = self._world or World(), tuple(self._policies())
            if policies != before.policies:
                self._watch_more(policies)
            peers = dict(self._peers.items) if self._peers else {}
            names = dict(self._namespaces.items) if self._namespaces else {}
            self._world = before.after(policies, peers, {name: item["labels"] for (_, name), item in names.items()})
            self._of, self._of_policies = change, of_policies
            return self._world

    def _policies(self) -> Iterable[Policy]:
        """All policies, each object read once."""
        from genie.policy import model

        found: dict[tuple[str, str, str], _Item] = {}
        for watch in self._sources:
            kind = "MultiNetworkPolicy" if watch is not self._sources[-1] else "NetworkPolicy"
            found.update({(kind, *key): item for key, item in list(watch.items.items())})
        before, self._parsed = self._parsed, {}
        for key, item in found.items():
            known = before.get(key)
            if known is None or known[0] is not item:
                known = (item, (model.multi(item),) if key[0] == "MultiNetworkPolicy" else model.genie(item))
            self._parsed[key] = known
            yield from known[1]
        for key in set(self._reported) - set(found):
            del self._reported[key]

    def _watch_more(self, policies: Iterable[Policy]) -> None:
        """Watch other pods and namespaces as far as the policies need them."""
        wanted = _interest(policies)
        if wanted.namespaces and self._namespaces is None:
            self._namespaces = Watch("namespaces", "/api/v1/namespaces", self._connect, _keep_namespace, _LABELLED,
                                     metadata_only=True, changed=self._changed, room=BUDGET)  # fmt: skip
            self._namespaces.start()
        if wanted.networks and not (self._peers and self._interest.covers(wanted)):
            if self._peers:
                self._peers.stop()
            self._interest = wanted
            self._peers = Watch(
                "pods of policies", "/api/v1/pods", self._connect, lambda item: _keep_peer(item, wanted, self._node),
                _PEER,
                metadata_only=not wanted.ports, changed=self._changed, room=PEERS_SIZE,
                fieldSelector="status.phase!=Succeeded,status.phase!=Failed",
            )  # fmt: skip
            self._peers.start()

    def _set(self, guarded: _Guarded, netns: str) -> str:
        """Set the rules of a container, if they change. Returns the reason that they could not be set; "" if none."""
        from genie.policy import apply, nft, rules

        with guarded.lock:
            if guarded.gone:
                return ""
            try:
                found = rules.decide(self._current(), self._self(guarded), guarded.interfaces)
                if found == guarded.rules:
                    return ""
                apply.replace(netns, nft.script(found), new=guarded.rules == ())
                guarded.rules, guarded.seen = found, ""
            except OSError as error:
                if netns == guarded.netns and has_namespace(netns, on_node=False) is False:
                    return ""  # it is gone, and its DEL comes
                return self._failed(
                    guarded, f"its network namespace cannot be entered: {os.strerror(error.errno or 0)}"
                )
            except (apply.ApplyError, rules.TooManyError) as error:
                return self._failed(guarded, str(error))
        self._metrics.policy_rules.add(1, "ok")
        return ""

    def _check(self, guarded: _Guarded) -> None:
        """Put the rules back if somebody changed them; try again if they could not be set."""
        from genie.policy import apply

        with guarded.lock, suppress(OSError):
            if not guarded.rules:
                return
            listed = _hash(apply.listing(guarded.netns))
            if listed and listed == (guarded.seen or listed):
                guarded.seen = listed
                return
            guarded.rules = None
            self._metrics.policy_rules.add(1, "repaired")
            log.warning("somebody changed the rules of a pod", pod=guarded.title)
        self._set(guarded, guarded.netns)

    def _self(self, guarded: _Guarded) -> Workload:
        from genie.policy.world import Workload

        known = self._kube.pods.get(guarded.namespace, guarded.pod)
        if known and (known.is_it(guarded.uid) or not guarded.uid):
            guarded.labels = known.labels
        peer = self._peers.get(guarded.namespace, guarded.pod) if self._peers else None
        return Workload(
            namespace=guarded.namespace,
            name=guarded.pod,
            labels=guarded.labels or {},
            ports=peer.ports if peer else (),
        )

    def _failed(self, guarded: _Guarded, why: str) -> str:
        self._metrics.policy_rules.add(1, "failed")
        log.error("the network policies of a pod could not be set", pod=guarded.title, error=why)
        return why

    def _counts(self) -> dict[tuple[str, ...], float]:
        policies = self._world.policies if self._world else ()
        bad = sum(1 for each in policies if each.error)
        return {("ok",): len(policies) - bad, ("bad",): bad}


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest() if text else ""


def _selects(policy: Policy, guarded: _Guarded) -> bool:
    """Whether a policy may be for this container; without its labels, every one of its namespace may."""
    return (
        policy.namespace == guarded.namespace
        and (guarded.labels is None or policy.selector.matches(guarded.labels))
        and any(policy.is_for(label) for _, label in guarded.interfaces)
    )


def _guarded(record: Record, rules: tuple[Interface, ...] | None = None) -> _Guarded:
    return _Guarded(
        rules=rules,
        namespace=record.namespace,
        pod=record.pod,
        uid=record.uid,
        netns=record.netns,
        interfaces=tuple((attached.ifname, attached.label) for attached in record.attached),
    )


def _interest(policies: Iterable[Policy]) -> _Interest:
    from genie.policy.world import networks_of

    keys: set[str] = set()
    networks: set[str] = set()
    ports = namespaces = False
    for policy in policies:
        labels = {name for entry in policy.networks for name in (entry, f"{policy.namespace}/{entry}")}
        for rule in (*(policy.ingress or ()), *(policy.egress or ())):
            named = any(port.name for port in rule.ports or ())
            ports = ports or named
            if named:
                networks |= labels
            for peer in rule.peers or ():
                if peer.block is not None:
                    continue
                namespaces = namespaces or bool(peer.namespaces and peer.namespaces.requirements)
                networks |= {name for label in labels for name in networks_of((peer, policy.namespace, label))}
                if peer.pods:
                    keys |= {key for key, _, _ in peer.pods.requirements}
    return _Interest(frozenset(keys), frozenset(networks), ports, namespaces)


def _keep_multi(item: _Item) -> tuple[_Item, _Item]:
    meta = item.get("metadata") or {}
    kept = {key: meta[key] for key in ("namespace", "name", "uid", "annotations") if key in meta}
    notes = kept.get("annotations")
    kept["annotations"] = {key: notes[key] for key in _POLICY_NOTES if key in notes} if isinstance(notes, dict) else {}
    return {"metadata": kept, "spec": item.get("spec")}, {"metadata": kept, "spec": "no room for it"}


def _keep_noted(item: _Item) -> tuple[_Item | None, _Item | None]:
    meta = item.get("metadata") or {}
    notes = meta.get("annotations")
    found = {key: notes[key] for key in _GENIE_NOTES if key in notes} if isinstance(notes, dict) else {}
    if not found.keys() & set(GENIE_POLICY):
        return None, None
    kept = {key: meta[key] for key in ("namespace", "name", "uid") if key in meta}
    return {"metadata": {**kept, "annotations": found}}, {"metadata": {**kept, "annotations": {GENIE_POLICY[0]: 0}}}


def _keep_namespace(item: _Item) -> tuple[_Item, None]:
    labels = (item.get("metadata") or {}).get("labels")
    return {"labels": labels if isinstance(labels, dict) else {}}, None


def _keep_peer(item: _Item, wanted: _Interest, node: str) -> tuple[Workload | None, None]:
    """A pod as far as policies need it; None if it has no address in a network of theirs."""
    from genie.policy.world import Workload

    meta = item.get("metadata") or {}
    notes, labels = meta.get("annotations"), meta.get("labels")
    addresses = _addresses(notes.get(NETWORK_STATUS) if isinstance(notes, dict) else None, wanted.networks)
    spec = item.get("spec") or {}
    if not addresses and not (wanted.ports and spec.get("nodeName") == node):
        return None, None
    return Workload(
        namespace=intern(str(meta.get("namespace"))),
        name=str(meta.get("name")),
        labels=wanted.kept(labels if isinstance(labels, dict) else {}),
        addresses=addresses,
        ports=_ports(spec) if wanted.ports else (),
    ), None


def _addresses(status: Any, networks: frozenset[str]) -> tuple[tuple[str, Range, bool], ...]:
    """The addresses in these networks, from the annotation; of a malformed one, none."""
    from genie.policy.model import cidr

    found: list[tuple[str, Range, bool]] = []
    with suppress(ValueError, TypeError, AttributeError, RecursionError):
        for entry in json.loads(status):
            if entry.get("name") in networks:
                for text in entry.get("ips") or ():
                    with suppress(CniError):
                        (first, _), v6 = cidr(f"{text}/{128 if ':' in text else 32}", "")
                        found.append((intern(entry["name"]), (first, first), v6))
    return tuple(found[:ADDRESSES_MAX])


def _ports(spec: _Item) -> tuple[tuple[str, str, int], ...]:
    """The named ports of a pod's containers, and of its sidecars."""
    found: list[tuple[str, str, int]] = []
    with suppress(TypeError, AttributeError, KeyError):
        sidecars = (each for each in spec.get("initContainers") or () if each.get("restartPolicy") == "Always")
        for container in (*(spec.get("containers") or ()), *sidecars):
            for port in container.get("ports") or ():
                if port.get("name"):
                    found.append(
                        (intern(port["name"]), intern(port.get("protocol") or "TCP"), int(port["containerPort"]))
                    )
    return tuple(found[:ADDRESSES_MAX])
