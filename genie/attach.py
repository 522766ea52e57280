"""The verbs, over a pod's selection: ADD with roll-back, DEL, CHECK, GC, STATUS, VERSION.

In comes a `Request`, what the runtime gave genie by environment and standard input; out goes a `Reply`, what genie is
to print and its exit status. Between them flow, for an ADD:

    pod → asks (selection.py) → configurations (networks.py) → selection → record → delegates, in order → one result

Nothing here knows whether it runs in the agent or alone: plugins are run by the `Executor`, the API server asked by the
`Kube` that it is given. All is `async` for the agent's sake; in direct mode nothing ever waits (see `run_sync`).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from genie import config, networks, selection, status
from genie.cni import invoke, version
from genie.cni import result as cni_result
from genie.cni.config import validate_container_id, validate_ifname
from genie.cni.errors import CniError, Code
from genie.cni.invoke import Attachment, Call, Executor, Outcome
from genie.cni.result import Interface, Result, Route
from genie.config import Conf
from genie.kube import Kube, Pod
from genie.records import Attached, Record, Records
from genie.selection import Asked, Choice, Selection

if TYPE_CHECKING:
    from genie.load import Reading
    from genie.netlink import Netlink

T = TypeVar("T")

#: Parameters that each verb must have (specification, section 2, "Parameters").
REQUIRED = {
    "ADD": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"),
    "DEL": ("CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"),
    "CHECK": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"),
    "GC": ("CNI_PATH",),
    "STATUS": ("CNI_PATH",),
    "VERSION": (),
}


@dataclass(frozen=True, kw_only=True)
class Request:
    """One call of the runtime."""

    env: Mapping[str, str]
    stdin: bytes

    @property
    def command(self) -> str:
        return self.env.get("CNI_COMMAND", "")

    @property
    def container_id(self) -> str:
        return self.env.get("CNI_CONTAINERID", "")

    @property
    def netns(self) -> str:
        return self.env.get("CNI_NETNS", "")

    @property
    def ifname(self) -> str:
        return self.env.get("CNI_IFNAME", "")

    @property
    def path(self) -> tuple[str, ...]:
        return tuple(filter(None, self.env.get("CNI_PATH", "").split(":")))

    @property
    def args(self) -> Mapping[str, str]:
        """CNI_ARGS, `K8S_POD_NAME=a;K8S_POD_NAMESPACE=b`, taken apart; what has no "=" is passed over."""
        pairs = (item.partition("=") for item in self.env.get("CNI_ARGS", "").split(";"))
        return {key.strip(): value for key, equals, value in pairs if equals}

    @property
    def pod_name(self) -> str:
        namespace, name = self.args.get("K8S_POD_NAMESPACE", ""), self.args.get("K8S_POD_NAME", "")
        return f"{namespace}/{name}" if namespace and name else ""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What genie prints and exits with. `story`: what happened, for a log line; it holds no secret."""

    status: int
    stdout: bytes
    story: Mapping[str, Any] = field(default_factory=dict)


async def serve(
    request: Request, kube: Kube, executor: Executor, conf: Conf | None = None, earlier: Reading | None = None
) -> Reply:
    """Serve one call of the runtime. Never raises: what goes wrong is a CNI error object in the reply.

    Args:
        conf: genie.conf, where the caller has parsed the request's standard input already.
        earlier: the interfaces' counters of some time ago, where the caller keeps them (see load.py).
    """
    started = time.monotonic()
    steps = _Steps()
    story: dict[str, Any] = {"verb": request.command, "pod": request.pod_name, "container": request.container_id}
    watched = _Watched(executor, steps)
    asked_version = conf.cni_version if conf else _spoken(request.stdin)
    try:
        if request.command == "VERSION":
            return Reply(status=0, stdout=_version(request.stdin), story=story)
        _validate(request)
        conf = conf or read_conf(request.stdin)
        call = _Verb(request=request, conf=conf, kube=kube, executor=watched, story=story, steps=steps, earlier=earlier)
        answer = await call.run()
        stdout, exit_status = (json.dumps(answer).encode() if answer is not None else b""), 0
    except CniError as error:
        story["error"] = str(error)
        stdout, exit_status = json.dumps(error.to_json(asked_version)).encode(), 1
    except Exception as error:  # a bug of genie's own must still be one CNI error, not a traceback on stdout
        story["error"] = f"{type(error).__name__}: {error}"
        bug = CniError(Code.INTERNAL, f"genie failed: {type(error).__name__}: {error}", "please report this as a bug")
        stdout, exit_status = json.dumps(bug.to_json(asked_version)).encode(), 1
    story["seconds"] = round(time.monotonic() - started, 6)
    story["delegates"] = watched.calls
    steps.done("answer")
    story["steps"] = steps.ms
    return Reply(status=exit_status, stdout=stdout, story=story)


def read_conf(stdin: bytes, source: str = "genie.conf (standard input)") -> Conf:
    """genie.conf out of the bytes that the runtime sends.

    Raises:
        CniError: 6 when it is not JSON, else as `config.parse`.
    """
    try:
        data = json.loads(stdin)
    except (ValueError, RecursionError) as error:
        raise CniError(Code.DECODING_FAILURE, f"{source}: not valid JSON: {error}") from error
    return config.parse(data, source)


def _version(stdin: bytes) -> bytes:
    """VERSION: answers in the version that was asked in (specification, section 2, "VERSION")."""
    return json.dumps({"cniVersion": _spoken(stdin), "supportedVersions": list(version.SUPPORTED)}).encode()


def _spoken(stdin: bytes) -> str:
    """The version that the runtime speaks, as far as its input tells: an error is told in it, too."""
    try:
        data = json.loads(stdin)
    except (ValueError, RecursionError):
        data = {}
    asked = data.get("cniVersion") if isinstance(data, dict) else None
    return asked if asked in version.SUPPORTED else version.LATEST


def _validate(request: Request) -> None:
    if request.command not in REQUIRED:
        raise CniError(
            Code.INVALID_ENVIRONMENT,
            f"CNI_COMMAND: expected one of {', '.join(REQUIRED)}, found {request.command!r}",
        )
    missing = [key for key in REQUIRED[request.command] if not request.env.get(key)]
    if missing:
        raise CniError(Code.INVALID_ENVIRONMENT, f"{request.command} needs {', '.join(missing)} in the environment")
    if request.command in ("ADD", "DEL", "CHECK"):
        validate_container_id(request.container_id)
        validate_ifname(request.ifname)


@dataclass(frozen=True, kw_only=True)
class _Verb:
    """One call in progress: what every step of it needs to know."""

    request: Request
    conf: Conf
    kube: Kube
    executor: Executor
    story: dict[str, Any]
    steps: _Steps
    earlier: Reading | None = None

    @property
    def records(self) -> Records:
        return Records(self.conf.state_dir)

    @property
    def directory(self) -> networks.Directory:
        return networks.directory(self.conf.conf_dir)

    async def run(self) -> Mapping[str, Any] | None:
        verbs = {"ADD": self.add, "DEL": self.delete, "CHECK": self.check, "GC": self.gc, "STATUS": self.status}
        return await verbs[self.request.command]()

    # --- ADD ---------------------------------------------------------------------------------------------------

    async def add(self) -> Mapping[str, Any]:
        """Specification, section 2, "ADD": all networks of the pod, or none."""
        if left := self.records.read(self.request.container_id, self.request.ifname):
            if left.complete:
                raise CniError(
                    Code.INVALID_ENVIRONMENT,
                    f"container {self.request.container_id} has {self.request.ifname} already: DEL must come first",
                )
            await self._delete(left)  # an ADD that was cut off; its DEL never came
        pod = await self._pod()
        chosen, extra_notes = await self._select(pod)
        self.story.update(why=chosen.why, selection=[[c.label, c.ifname] for c in chosen.choices])
        record = self._record(pod, chosen)
        self.steps.done("select")
        self.records.write(record)
        self.steps.done("record")
        begun: dict[int, Result | None] = {}
        try:
            results, arranged = await self._attach(record, begun)
            merged = self._merged(chosen, results)
            answer = cni_result.to_json(merged, self.conf.cni_version)
            notes = {**status.on_pod(chosen.choices, results), **extra_notes}
            attached = tuple(replace(a, result=r) for a, r in zip(record.attached, results, strict=True))
            done = replace(record, attached=attached, complete=True, annotations=notes, arranged=arranged)
            self.steps.done("answer")
            self.records.complete(done)
            self.steps.done("record")
        except BaseException as error:  # a cancelled call too: whatever ends an ADD, its attachments go
            back = tuple(replace(a, result=begun[i]) for i, a in enumerate(record.attached) if i in begun)
            undone = await self._rolled_back(replace(record, attached=back), error)
            raise undone from error
        await self._tell(pod, done)
        return answer

    async def _pod(self) -> Pod:
        """The pod that the runtime means; without one (no Kubernetes), the annotations of CNI_ARGS' K8S_ANNOT."""
        args = self.request.args
        namespace, name = args.get("K8S_POD_NAMESPACE", ""), args.get("K8S_POD_NAME", "")
        if namespace and name:
            return await self.kube.pod(namespace, name, args.get("K8S_POD_UID", ""))
        try:
            notes = json.loads(args.get("K8S_ANNOT") or "{}")
        except (ValueError, RecursionError) as error:
            raise CniError(Code.INVALID_ENVIRONMENT, f"CNI_ARGS: K8S_ANNOT: not valid JSON: {error}") from error
        if not isinstance(notes, dict) or not all(isinstance(value, str) for value in notes.values()):
            raise CniError(Code.INVALID_ENVIRONMENT, "CNI_ARGS: K8S_ANNOT: expected an object of strings")
        return Pod(namespace=namespace, name=name, annotations=notes)

    async def _select(self, pod: Pod) -> tuple[Selection, Mapping[str, str]]:
        """What the pod gets, and what of it is to be written back besides its status (`cni: ""`)."""
        asked = selection.asks(pod, self.conf)
        notes: Mapping[str, str] = {}
        if asked.smart:
            asked = least_loaded(asked, self.directory, self.conf, self.earlier)
            notes = {selection.CNI: asked.primary[0].name}
        found = await networks.find(
            asked.primary + asked.extra,
            self.kube,
            self.directory,
            pod.namespace,
            self.request.path,
            devices=lambda: devices_of(pod),
        )
        chosen = selection.assemble(
            asked,
            found,
            ifname=self.request.ifname,
            runtime_config=self.conf.runtime_config,
            pod_namespace=pod.namespace,
        )
        return chosen, notes

    def _record(self, pod: Pod, chosen: Selection) -> Record:
        request = self.request
        attached = []
        for position, choice in enumerate(chosen.choices):
            again = any(earlier.network.name == choice.network.name for earlier in chosen.choices[:position])
            attached.append(
                Attached(
                    label=choice.label,
                    network=choice.network,
                    container_id=self._container_id(choice) if again else request.container_id,
                    ifname=choice.ifname,
                    runtime_config=choice.runtime_config,
                    gateways=choice.ask.default_route or (),
                )
            )
        return Record(
            container_id=request.container_id,
            ifname=request.ifname,
            netns=request.netns,
            args=request.env.get("CNI_ARGS", ""),
            namespace=pod.namespace,
            pod=pod.name,
            uid=pod.uid,
            attached=tuple(attached),
        )

    def _container_id(self, choice: Choice) -> str:
        """The CNI_CONTAINERID of a network's second attachment: the container's own, unless one of its plugins names
        things after the ID alone (CNI-Genie #133); then one derived from it and the interface, of the same length.
        """
        own = self.request.container_id
        if not set(choice.network.types) & set(self.conf.container_id_per_interface):
            return own
        import hashlib

        return hashlib.sha256(f"{own}@{choice.ifname}".encode()).hexdigest()[: max(len(own), 12)]

    async def _attach(self, record: Record, begun: dict[int, Result | None]) -> tuple[list[Result], tuple[str, ...]]:
        """Run the delegates: the first network first, then those that cannot disturb each other at once, then the
        rest one by one; each that may set routes finds none in its way (see routes.py). Returns their results, and the
        routes and rules that were arranged for them.

        `begun` is told of each before it is called, and of its result after.
        """
        results: dict[int, Result] = {}
        first, *others = range(len(record.attached))
        calm = [] if self.conf.serial else [i for i in others if networks.quiet(record.attached[i].network)]
        loud = [i for i in others if i not in calm]

        async def attach(position: int) -> None:
            begun[position] = None
            begun[position] = results[position] = await self._attach_one(record.attached[position])

        if not others:
            await attach(first)
            return [results[first]], ()
        held: dict[int, tuple[Any, ...]] = {}
        with self._netlink() as kernel:
            kernel.enter()  # while the first delegate is at work
            await attach(first)
            if loud:
                held[first] = self._hold(kernel)
            if len(calm) == 1:
                await attach(calm[0])
            elif calm:
                for outcome in await self.executor.gather(*(attach(i) for i in calm)):
                    if isinstance(outcome, BaseException):
                        raise outcome
            for i in loud:
                await attach(i)
                if i != loud[-1]:
                    held[i] = self._hold(kernel)
            in_order = [results[i] for i in (first, *others)]
            return in_order, self._settle(kernel, record, in_order, held)

    async def _attach_one(self, attached: Attached) -> Result:
        result = await invoke.add(
            attached.network,
            self._attachment(attached, self.request.netns, self.request.env.get("CNI_ARGS", "")),
            self.executor,
            timeout=self.conf.delegate_timeout,
        )
        result = attributed(result, attached.ifname, self.request.netns)
        self.steps.done("results")
        return result

    def _attachment(self, attached: Attached, netns: str, args: str) -> Attachment:
        return Attachment(
            container_id=attached.container_id,
            netns=netns,
            ifname=attached.ifname,
            args=args,
            path=self.request.path,
            runtime_config=attached.runtime_config,
            env=self.request.env,
        )

    def _netlink(self) -> Netlink:
        from genie.netlink import Netlink  # a pod of one network does not pay for its import

        return Netlink(self.request.netns)

    def _hold(self, kernel: Netlink) -> tuple[Any, ...]:
        from genie import routes

        try:
            held = routes.hold(kernel)
        except OSError as error:
            raise CniError(Code.IO_FAILURE, f"cannot change the routes in {self.request.netns}: {error}") from error
        self.steps.done("routes")
        return held

    def _settle(
        self, kernel: Netlink, record: Record, results: Sequence[Result], held: Mapping[int, tuple[Any, ...]]
    ) -> tuple[str, ...]:
        from genie import routes

        plan = [
            routes.Attached(
                ifname=attached.ifname,
                result=result,
                held=held.get(i, ()),
                wants_default=bool(attached.gateways),
                gateways=attached.gateways,
            )
            for i, (attached, result) in enumerate(zip(record.attached, results, strict=True))
        ]
        try:
            arranged = routes.settle(kernel, plan).arranged
        except OSError as error:
            raise CniError(Code.IO_FAILURE, f"cannot arrange the routes of {_labels(record)}: {error}") from error
        self.steps.done("routes")
        return arranged

    def _merged(self, chosen: Selection, results: Sequence[Result]) -> Result:
        """One result; its only default route is the one that the pod has, and the first network's addresses come first.

        Runtimes take the pod's address from CNI_IFNAME. When the first network is on another interface, its
        addresses go without an index, which containerd reads as that interface.
        """
        merged = cni_result.merge(in_place([choice.ask.default_route or () for choice in chosen.choices], results))
        if chosen.choices[0].ifname == self.request.ifname:
            return merged
        first = len(results[0].ips)
        ips = tuple(replace(ip, interface=None) if i < first else ip for i, ip in enumerate(merged.ips))
        return replace(merged, ips=ips)

    async def _rolled_back(self, record: Record, error: BaseException) -> BaseException:
        """Undo an ADD: DEL of every network that was begun, in reverse. What cannot be undone stays in the record, for
        the runtime's DEL.
        """
        try:
            await self._delete(record, error)
        except CniError as second:
            if isinstance(error, CniError) and second.msg not in error.details:
                return CniError(error.code, error.msg, "; ".join(filter(None, (error.details, f"also: {second}"))))
        return error

    async def _tell(self, pod: Pod, record: Record) -> None:
        """Write the status back. A pod that is up is not taken down because the API server is slow to hear of it."""
        if not pod.name:
            return
        try:
            await self.kube.annotate(pod, record.annotations)
        except CniError as error:
            self.story["annotate"] = str(error)

    # --- DEL ---------------------------------------------------------------------------------------------------

    async def delete(self) -> None:
        """Specification, section 2, "DEL": works from the record alone, so that nobody else need be there."""
        record = self.records.read(self.request.container_id, self.request.ifname)
        if record is None:
            await self._delete_unrecorded()
            return
        self.story["selection"] = [[a.label, a.ifname] for a in record.attached]
        await self._delete(record)

    async def _delete(self, record: Record, undoing: BaseException | None = None) -> None:
        """DEL in reverse order, past those that fail; the record then holds these, for another DEL to try.

        Args:
            undoing: the failure of the ADD that this undoes.

        Raises:
            CniError: the first failure, with the others in its details.
        """
        left: list[Attached] = []
        errors: list[CniError] = []
        for attached in reversed(record.attached):
            try:
                await invoke.delete(
                    attached.network,
                    self._attachment(attached, self.request.netns, record.args),
                    self.executor,
                    prev_result=attached.result,
                    timeout=self.conf.delegate_timeout,
                )
            except CniError as error:
                if attached.result is None and _refused_alike(undoing, error):
                    continue
                left.insert(0, attached)
                errors.append(error)
        if not errors:
            if len(record.attached) > 1:
                self._forget_routes()
            self.records.remove(record.container_id, record.ifname)
            return
        self.records.write(
            replace(record, attached=tuple(left), complete=record.complete and self.request.command == "DEL")
        )
        first, *others = errors
        raise CniError(first.code, first.msg, "; ".join(filter(None, (first.details, *map(str, others)))))

    def _forget_routes(self) -> None:
        """Take genie's own rules and tables out of a namespace that outlives its attachments."""
        from genie import routes

        try:
            with self._netlink() as kernel:
                routes.settle(kernel, [])
        except OSError as error:
            self.story["routes"] = f"ignored, for the namespace is about to go: {error}"

    async def _delete_unrecorded(self) -> None:
        """A container that genie has no record of: deleted already, or made before genie was installed, by the network
        that was first then. That one is asked to DEL what it may have; it knows nothing of others' containers.
        """
        self.story["why"] = "no record"
        try:
            for network in self.directory.networks()[:1] if self.request.netns else []:
                attached = Attached(
                    label=network.name,
                    network=network,
                    container_id=self.request.container_id,
                    ifname=self.request.ifname,
                    runtime_config=self.conf.runtime_config,
                )
                attachment = self._attachment(attached, self.request.netns, self.request.env.get("CNI_ARGS", ""))
                await invoke.delete(network, attachment, self.executor, timeout=self.conf.delegate_timeout)
        except CniError as error:
            self.story["error"] = f"ignored, for there may be nothing to delete: {error}"

    # --- CHECK, GC, STATUS -------------------------------------------------------------------------------------

    async def check(self) -> None:
        """Specification, section 2, "CHECK": every delegate with its own prevResult, then the routes that are genie's.

        Raises:
            CniError: 3 without a record; else the first thing found wrong.
        """
        record = self.records.read(self.request.container_id, self.request.ifname)
        if record is None or not record.complete:
            raise CniError(
                Code.UNKNOWN_CONTAINER, f"genie has attached no {self.request.ifname} to {self.request.container_id}"
            )
        told = in_place([a.gateways for a in record.attached], [a.result or Result() for a in record.attached])
        for attached, result in zip(record.attached, told, strict=True):
            await invoke.check(
                attached.network,
                self._attachment(attached, self.request.netns, record.args),
                self.executor,
                prev_result=result,
                timeout=self.conf.delegate_timeout,
            )
        if record.arranged:
            self._check_routes(record)

    def _check_routes(self, record: Record) -> None:
        from genie import routes

        attached = [
            routes.Attached(ifname=a.ifname, result=a.result, wants_default=bool(a.gateways), gateways=a.gateways)
            for a in record.attached
            if a.result is not None
        ]
        try:
            with self._netlink() as kernel:
                found = routes.drift(kernel, attached, record.arranged)
        except OSError as error:
            raise CniError(Code.IO_FAILURE, f"cannot read the routes in {self.request.netns}: {error}") from error
        if found:
            raise CniError(
                Code.INTERNAL,
                f"somebody changed the routes that genie arranged in {self.request.netns}",
                "; ".join(found),
            )

    async def gc(self) -> None:
        """Specification, section 2, "GC": what is not valid goes, genie's records first, then each network's own."""
        valid = {(entry["containerID"], entry["ifname"]) for entry in _valid_attachments(self.conf.raw)}
        errors: list[CniError] = []
        keep: dict[str, set[tuple[str, str]]] = {}
        for record in self.records.all():
            if isinstance(record, CniError):
                raise record  # who knows what it holds; without it, a network would delete what is in use
            if (record.container_id, record.ifname) not in valid:
                try:
                    await self._delete(record)
                except CniError as error:
                    errors.append(error)
                continue
            for attached in record.attached:
                keep.setdefault(attached.network.name, set()).add((attached.container_id, attached.ifname))
        for network in self.directory.networks():
            # a valid container without a record is from before genie: no network may take it for garbage
            stay = keep.get(network.name, set()) | valid
            entries = [{"containerID": container, "ifname": ifname} for container, ifname in sorted(stay)]
            try:
                await invoke.gc(
                    network,
                    entries,
                    self.executor,
                    path=self.request.path,
                    env=self.request.env,
                    timeout=self.conf.delegate_timeout,
                )
            except CniError as error:
                errors.append(error)
        if errors:
            raise CniError(errors[0].code, errors[0].msg, "; ".join(str(error) for error in errors[1:]))

    async def status(self) -> None:
        """Specification, section 2, "STATUS": whether an ADD of a pod that asks for nothing can work now.

        Raises:
            CniError: 50, "the plugin is not available", with the reason.
        """
        asked = selection.asks(Pod(namespace="", name=""), self.conf)
        try:
            for network in await networks.find(asked.primary, self.kube, self.directory, "", self.request.path):
                await invoke.status(
                    network,
                    self.executor,
                    path=self.request.path,
                    env=self.request.env,
                    timeout=self.conf.delegate_timeout,
                )
                for kind in network.types:
                    invoke.find(kind, self.request.path)
        except CniError as error:
            code = error.code if error.code == Code.LIMITED_CONNECTIVITY else Code.NOT_AVAILABLE
            raise CniError(code, error.msg, error.details) from error
        _writable(self.conf.state_dir)


def devices_of(pod: Pod) -> dict[str, list[str]]:
    from genie import devices

    return devices.of_pod(pod.namespace, pod.name)


def least_loaded(asked: Asked, directory: networks.Directory, conf: Conf, earlier: Reading | None = None) -> Asked:
    """`cni: ""` decided: the default part is the network that carries the least now.

    Args:
        earlier: the counters as they were some time ago; without them this takes as long as two readings do.
    """
    from genie import load

    names = {network.name: directory.title(network) for network in directory.networks()}
    choice = load.least(list(names), Records(conf.state_dir), conf, earlier)
    ask = selection.Ask(name=names[choice.network], where='annotation cni ("")', lookup="default")
    return replace(asked, primary=(ask,), smart=False, why=f"{asked.why}: {choice.why}")


def attributed(result: Result, ifname: str, netns: str) -> Result:
    """A delegate's result with each address on an interface of the pod.

    Plugins of old versions, and calico today, tell addresses without interfaces; merged with another network's they
    would count as that one's.
    """
    if all(ip.interface is not None for ip in result.ips):
        return result
    inside = [i for i, interface in enumerate(result.interfaces) if interface.sandbox and interface.name == ifname]
    interfaces = result.interfaces if inside else (*result.interfaces, Interface(name=ifname, sandbox=netns))
    index = inside[0] if inside else len(result.interfaces)
    ips = tuple(ip if ip.interface is not None else replace(ip, interface=index) for ip in result.ips)
    return replace(result, interfaces=interfaces, ips=ips)


def in_place(asked: Sequence[Sequence[str]], results: Sequence[Result]) -> list[Result]:
    """The results with the routes that the pod's main table has, as routes.settle arranges it.

    In each family one default route: that of the network that was asked for it, by the gateway that was asked for, else
    of the first network that has one. Of several routes that have one place, that of the same network, else of the
    first one. A route of a table of its own collides with none.

    Args:
        asked: of each network, the gateways that the pod asked its default route to go by.
    """
    if len(results) == 1 and not any(asked):
        return list(results)
    told: list[list[Route]] = [[] for _ in results]
    for v6, default in ((False, "0.0.0.0/0"), (True, "::/0")):
        asking = [(i, g) for i, gateways in enumerate(asked) for g in gateways if (":" in g) == v6]
        having = [(i, r) for i, result in enumerate(results) for r in result.routes if _is_default(r) and r.is_v6 == v6]
        chosen = (asking or having or [(0, None)])[0][0]
        taken: dict[object, int] = {}
        for position in (chosen, *(i for i in range(len(results)) if i != chosen)):
            for route in results[position].routes:
                if route.is_v6 != v6 or _is_default(route):
                    continue
                if route.table or taken.setdefault((route.dst, route.priority), position) == position:
                    told[position].append(route)
        if asking:
            position, gateway = asking[0]
            told[position].append(Route(dst=default, gw=gateway))
        elif having:
            told[chosen] += [route for position, route in having if position == chosen]
    return [replace(result, routes=tuple(routes)) for result, routes in zip(results, told, strict=True)]


def _refused_alike(add: BaseException | None, delete: CniError) -> bool:
    """Whether a plugin fails at DEL as it did at ADD: it is not there, or cannot read its configuration.

    So there is nothing of its to delete; and since the record keeps the configuration, no later DEL could ever succeed.
    """
    if not isinstance(add, CniError) or add.code == Code.TRY_AGAIN:
        return False
    return (add.code, add.msg.replace(": ADD: ", ": DEL: ", 1)) == (delete.code, delete.msg)


def _is_default(route: Route) -> bool:
    return not route.table and route.dst in ("0.0.0.0/0", "::/0")


def _labels(record: Record) -> str:
    return ", ".join(attached.label for attached in record.attached)


def _valid_attachments(raw: Mapping[str, Any]) -> list[Mapping[str, str]]:
    """`cni.dev/valid-attachments`, or the name that libcni used at first (`cni.dev/attachments`).

    Raises:
        CniError: 7; without the list, everything would be garbage.
    """
    entries = raw.get("cni.dev/valid-attachments", raw.get("cni.dev/attachments"))
    if not isinstance(entries, list) or not all(
        isinstance(e, dict) and isinstance(e.get("containerID"), str) and isinstance(e.get("ifname"), str)
        for e in entries
    ):
        raise CniError(
            Code.INVALID_CONFIG, "GC: cni.dev/valid-attachments: expected a list of objects with containerID and ifname"
        )
    return entries


def _writable(directory: str) -> None:
    try:
        os.makedirs(directory, 0o700, exist_ok=True)
    except OSError as error:
        raise CniError(Code.NOT_AVAILABLE, f"cannot keep records in {directory}: {error.strerror}") from error
    if not os.access(directory, os.W_OK):
        raise CniError(Code.NOT_AVAILABLE, f"cannot keep records in {directory}: it is not writable")


class _Steps:
    """Where genie's own time goes, for the story: milliseconds by step, the waiting for delegates left out.

    Of delegates that run at once, each one's end or beginning ends the wait.
    """

    def __init__(self) -> None:
        self.ms: dict[str, float] = {}
        self._last = time.perf_counter()

    def done(self, step: str) -> None:
        """What was done since the last call was this."""
        before, self._last = self._last, time.perf_counter()
        self.ms[step] = round(self.ms.get(step, 0.0) + (self._last - before) * 1000, 3)

    def waited(self) -> None:
        """What was done since the last call was to wait."""
        self._last = time.perf_counter()


class _Watched:
    """An executor that notes what it ran, for the story."""

    def __init__(self, inner: Executor, steps: _Steps) -> None:
        self.inner, self.steps = inner, steps
        self.calls: list[dict[str, Any]] = []

    async def run(self, call: Call) -> Outcome:
        self.steps.done("requests")
        outcome = await self.inner.run(call)
        self.steps.waited()
        self.calls.append(
            {
                "plugin": call.binary.rpartition("/")[2],
                "verb": call.env.get("CNI_COMMAND", ""),
                "ifname": call.env.get("CNI_IFNAME", ""),
                "status": outcome.status,
                "ms": round(outcome.seconds * 1000, 3),
            }
        )
        return outcome

    async def gather(self, *work: Coroutine[Any, Any, T]) -> list[T | BaseException]:
        return await self.inner.gather(*work)
