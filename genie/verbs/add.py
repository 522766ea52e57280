"""ADD: attaches the pod to all of its networks, or to none (specification, section 2, "ADD")."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from genie.cni import invoke
from genie.cni import result as cni_result
from genie.cni.errors import CniError, Code
from genie.cni.fields import Fields, decode
from genie.cni.invoke import PluginError, Progress
from genie.cni.result import Result
from genie.kube import Pod, RefusedError
from genie.records import Record, RecordedAttachment
from genie.select.annotations import CNI
from genie.select.choose import choose
from genie.select.selection import DEVICE_INFO_FILE, Choice, Selection
from genie.verbs import network_status
from genie.verbs.context import Context, placed
from genie.verbs.delete import undo
from genie.verbs.results import attributed, check_total, completed, in_place, lacks, merged, results_size

DROPPED = "CapabilityDropped"
"""Reason of the Event for requests that were dropped because of genie.conf (`undeclared_capabilities`)."""

if TYPE_CHECKING:
    from genie.kernel import routes
    from genie.kernel.netlink import Netlink
    from genie.kernel.netns import Conversation, Link

    _Done = tuple[list[Result], routes.Plan | None]
    """The results, and how their routes were arranged; None for a network alone."""


async def add(call: Context) -> Mapping[str, Any]:
    """Attach the pod, and return the result in the version that the runtime speaks.

    The record is on disk before the first delegate runs. If the ADD fails or is cancelled, its attachments are undone.
    """
    request = call.request
    await call.claim(request.container_id, request.ifname)
    if left := await call.record():
        if left.complete:
            raise CniError(
                Code.INVALID_ENVIRONMENT,
                f"container {request.container_id} has {request.ifname} already: DEL must come first",
            )
        await undo(call, left)  # an ADD that was interrupted; its DEL never came
    pod = await _pod(call)
    chosen, extra_notes = await choose(
        pod, call.conf, call.kube, call.executor, path=request.path, ifname=request.ifname, earlier=call.earlier
    )
    call.story.update(why=chosen.why, selection=[[c.label, c.ifname] for c in chosen.choices])
    record = _record(call, pod, chosen)
    call.steps.done("select")
    sync = await call.compute(lambda: call.records.begin(record), size=chosen.size)
    saved = call.executor.in_thread(sync)
    call.steps.done("record")
    progress: dict[int, Progress] = {}
    try:
        if call.guard:
            await call.guard.protect(call, pod, record)
            call.steps.done("policy")
        attached = await _attach(call, record, chosen, progress, saved)
        size = chosen.size + results_size(*attached)
        answer, shown, done = await call.compute(
            lambda: _answered(call, record, chosen, attached, extra_notes), size=size
        )
        call.steps.done("answer")
        await call.compute(lambda: call.records.complete(done), size=size)
        call.steps.done("record")
    except BaseException as error:  # a cancelled call too
        if CNI in extra_notes:
            _chosen_in_vain(call, record, progress, error)
        undone = await _rolled_back(call, _begun(record, progress), error)
        raise undone from error
    if dropped := [f"{c.ifname}: {', '.join(c.dropped)}" for c in chosen.choices if c.dropped]:
        call.story["dropped"] = dropped
        text = f"dropped, because no plugin declares these capabilities: {'; '.join(dropped)}"
        await call.event(pod, DROPPED, text, warning=True)
    await _tell(call, pod, done)
    for choice, result in zip(chosen.choices, shown, strict=True) if call.conf.events else ():
        if message := network_status.added(choice, result):
            await call.event(pod, network_status.ADDED, message)
    return answer


def _answered(
    call: Context, record: Record, chosen: Selection, done: _Done, extra_notes: Mapping[str, str]
) -> tuple[Mapping[str, Any], Sequence[Result], Record]:
    """The answer for the runtime, the results as they are shown, and the complete record."""
    results, plan = done
    shown = in_place(results, plan.reported) if plan else results
    whole = merged(shown, first_elsewhere=chosen.choices[0].ifname != call.request.ifname)
    answer = cni_result.to_json(whole, call.conf.cni_version)
    notes = {**network_status.on_pod(chosen.choices, shown, _devices(call, record)), **extra_notes}
    attached = tuple(
        replace(a, result=r, reported=None if as_reported.routes == r.routes else as_reported.routes)
        for a, r, as_reported in zip(record.attached, results, shown, strict=True)
    )
    arranged = plan.arranged if plan else ()
    return answer, shown, replace(record, attached=attached, complete=True, annotations=notes, arranged=arranged)


async def _pod(call: Context) -> Pod:
    """The pod of the request; without Kubernetes, one made from the annotations in CNI_ARGS' K8S_ANNOT."""
    args = call.request.args
    if found := await call.pod():
        return found
    namespace, name = args.get("K8S_POD_NAMESPACE", ""), args.get("K8S_POD_NAME", "")
    where = "CNI_ARGS: K8S_ANNOT"
    read = Fields(decode(args.get("K8S_ANNOT") or "{}", where, _bad_argument), where, _bad_argument, strict=True)
    return Pod(namespace=namespace, name=name, annotations={key: read.string(key) for key in read.data})


def _bad_argument(where: str, message: str) -> CniError:
    return CniError(Code.INVALID_ENVIRONMENT, f"{where}: {message}")


def _record(call: Context, pod: Pod, chosen: Selection) -> Record:
    request = call.request
    attached = []
    before: set[str] = set()
    for choice in chosen.choices:
        container_id = call.container_id(request.container_id, choice.network, choice.ifname, before)
        attached.append(
            RecordedAttachment(
                label=choice.label,
                network=choice.network,
                container_id=container_id,
                ifname=choice.ifname,
                runtime_config=_arguments(choice, container_id),
                default_route=choice.ask.default_route,
            )
        )
        before.update(choice.network.types)
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


def _arguments(choice: Choice, container_id: str) -> Mapping[str, Any]:
    """A network's runtimeConfig, with the path of its device information file."""
    if not choice.has_device_info:
        return choice.runtime_config
    from genie.verbs import device_info  # most networks have no device

    return {**choice.runtime_config, DEVICE_INFO_FILE: device_info.path(container_id, choice.ifname)}


async def _attach(
    call: Context, record: Record, chosen: Selection, progress: dict[int, Progress], saved: Awaitable[None]
) -> _Done:
    """Run the delegates.

    progress: of each network that was started, by position. saved: the write to disk of the record (see records.py).
    """

    async def attach(position: int) -> Result:
        result = await _attach_one(call, record, chosen.choices[position], position, progress)
        if position == 0:
            await saved
            call.steps.done("record")
        return result

    if len(record.attached) == 1 and record.attached[0].default_route is None:
        results = [await attach(0)]
        with call.conversation() as kernel:
            return (await _completed(call, kernel, record, results))[1], None
    with call.netlink() as kernel:
        kernel.enter()
        results, taken = await _attach_all(call, kernel, record, chosen.primary, attach)
        check_total(results)
        links, results = await _completed(call, kernel, record, results)
        asks = [(i, choice.ask) for i, choice in enumerate(chosen.choices)]
        wishes = [(i, ask.where, ask.default_route) for i, ask in asks if ask.default_route is not None]
        if wishes:
            from genie.verbs import default_route
        for i, where, wanted in wishes:
            default_route.check_gateways(where, wanted, results[i], record.attached[i].ifname)
        plan = await _arrange(call, kernel, _placed(record, results, taken), links)
        await call.compute(taken.clear, size=200 * sum(map(len, taken.values())))  # to free thousands takes long, too
        for i, where, wanted in wishes:
            default_route.check_granted(where, wanted, plan.reported[i])
        return results, plan


async def _attach_all(
    call: Context, kernel: Netlink, record: Record, primary: int, attach: Callable[[int], Coroutine[Any, Any, Result]]
) -> tuple[list[Result], dict[int, tuple[Any, ...]]]:
    """Attach the first network, together with the default networks that cannot collide with it (see footprint.py). Then
    the others that may be attached at the same time, then the rest one at a time, with earlier routes taken away (see
    kernel/routes.py). Returns the results, and the routes that were taken away, by position.
    """
    from genie.verbs.footprint import at_once, footprint  # not imported for a pod of one network

    results: dict[int, Result] = {}
    taken: dict[int, tuple[Any, ...]] = {}
    first, *others = range(len(record.attached))
    prints = [footprint(attached.network) for attached in record.attached]
    concurrent = [] if call.conf.serial else [others[i] for i in at_once(prints[first], prints[1:])]
    with_first = [] if prints[first] is None else [i for i in concurrent if i < primary]

    async def attached(position: int) -> None:
        results[position] = await attach(position)

    for together in ([first, *with_first], [i for i in concurrent if i not in with_first]):
        if len(together) > 1:
            for outcome in await call.executor.gather(*(attached(i) for i in together)):
                if isinstance(outcome, BaseException):
                    raise outcome
        elif together:
            await attached(together[0])
    for before, i in pairwise((first, *(i for i in others if i not in concurrent))):
        taken[before] = await _take_away(call, kernel)
        await attached(i)
    return [results[i] for i in (first, *others)], taken


async def _attach_one(
    call: Context, record: Record, choice: Choice, position: int, progress: dict[int, Progress]
) -> Result:
    attached = record.attached[position]
    progress[position] = Progress()
    if choice.has_device_info:
        _offer_device(call, attached, choice)
    at = call.attachment(attached, record.args)
    result = await invoke.add(attached.network, at, call.executor, progress[position])
    call.steps.done("results")
    return result


def _offer_device(call: Context, attached: RecordedAttachment, choice: Choice) -> None:
    from genie.verbs import device_info

    try:
        device_info.offer(attached.runtime_config[DEVICE_INFO_FILE], choice.resource, choice.device_id)
    except OSError as error:
        call.story["device_info"] = f"{choice.label}: not offered: {error}"


def _devices(call: Context, record: Record) -> Mapping[int, Mapping[str, Any]]:
    """The device information that plugins and device plugins wrote, by position of the network."""
    files = {
        position: attached.runtime_config[DEVICE_INFO_FILE]
        for position, attached in enumerate(record.attached)
        if DEVICE_INFO_FILE in attached.runtime_config
    }
    if not files:
        return {}
    from genie.verbs import device_info

    found = {}
    for position, file in files.items():
        try:
            found[position] = device_info.read(file) or {}
        except (OSError, CniError) as error:
            call.story["device_info"] = f"{file} is not shown: {error}"
    return found


async def _completed(
    call: Context, kernel: Conversation, record: Record, results: Sequence[Result]
) -> tuple[dict[str, Link] | None, list[Result]]:
    """Complete the results from the kernel. Returns them, and the pod's links, if they were read for this or are needed
    for the routes anyway.
    """
    netns, links = call.request.netns, None
    pairs = list(zip([attached.ifname for attached in record.attached], results, strict=True))
    if len(pairs) > 1 or any(lacks(result, ifname) for ifname, result in pairs):
        try:
            links = await call.in_namespace(kernel, kernel.links)
        except OSError as error:
            call.story["links"] = f"not read, so results are reported as they are: {error}"
    done = [
        attributed(completed(result, ifname, netns, links) if links else result, ifname, netns)
        for ifname, result in pairs
    ]
    call.steps.done("links")
    return links, done


async def _take_away(call: Context, kernel: Netlink) -> tuple[Any, ...]:
    from genie.kernel import routes

    with call.asking_kernel("change the routes"):
        taken = await call.in_namespace(kernel, lambda: routes.take_away(kernel))
    call.steps.done("routes")
    return taken


async def _arrange(
    call: Context, kernel: Netlink, placed: Sequence[routes.Placed], links: Mapping[str, Link] | None
) -> routes.Plan:
    from genie.kernel import routes

    def arrange() -> routes.Plan:
        plan = routes.arrange(kernel, placed, links)
        plan.changes.clear()  # to free thousands takes long, and this is the thread for it
        return plan

    with call.asking_kernel("arrange the routes"):
        # To plan routes takes about twice as long as to convert them.
        size = 2 * results_size([one.result for one in placed]) + 200 * sum(len(one.taken) for one in placed)
        plan = await call.in_namespace(kernel, arrange, size=size)
    call.steps.done("routes")
    return plan


def _placed(
    record: Record, results: Sequence[Result], taken: Mapping[int, tuple[Any, ...]]
) -> tuple[routes.Placed, ...]:
    return tuple(
        replace(placed(attached, result), taken=taken.get(i, ()))
        for i, (attached, result) in enumerate(zip(record.attached, results, strict=True))
    )


def _begun(record: Record, progress: Mapping[int, Progress]) -> Record:
    """The record of what to undo: the networks that were started, each with the plugins that were called."""
    attached = tuple(
        replace(record.attached[i], result=one.result, left=tuple(range(one.called)))
        for i, one in sorted(progress.items())
    )
    return replace(record, attached=attached)


async def _rolled_back(call: Context, record: Record, error: BaseException) -> BaseException:
    """Undo an ADD. What cannot be undone stays in the record for the runtime's DEL. Returns the error to raise."""
    try:
        await undo(call, record, error)
    except CniError as second:
        if isinstance(error, CniError):
            # code 3 would mean that there is nothing to clean up (specification, section 5)
            code = Code.INTERNAL if error.code == Code.UNKNOWN_CONTAINER else error.code
            return CniError(code, error.msg, error.details).adding(f"also: {second}")
    return error


def _chosen_in_vain(call: Context, record: Record, progress: Mapping[int, Progress], error: BaseException) -> None:
    """Count a failed ADD against the network that `cni: ""` chose: its plugin failed, or the runtime gave up on it."""
    from genie.select import spent

    chosen = record.attached[0]
    given_up = not isinstance(error, Exception) and list(progress) == [0]
    if given_up or (isinstance(error, PluginError) and error.ifname == chosen.ifname):
        spent.failed(call.conf.state_dir, chosen.network.name)


async def _tell(call: Context, pod: Pod, record: Record) -> None:
    """Write the status back. The ADD does not fail if the API server is slow: the pod's networks work already."""
    if not pod.name:
        return
    try:
        less = await call.kube.annotate(pod, record.annotations, network_status.shorter)
    except CniError as error:
        call.story["annotate"] = str(error)
        if isinstance(error, RefusedError):  # without an API server, there is nowhere to send the Event either
            await call.event(pod, network_status.REFUSED, str(error), warning=True)
    else:
        if less:
            call.story["annotate"] = less
            await call.event(pod, network_status.SHORTENED, less, warning=True)
