"""One call in progress: the state that every verb needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from genie.cni import execute
from genie.cni.config import NetworkConfig
from genie.cni.errors import CniError, Code
from genie.cni.execute import Executor
from genie.cni.fields import invalid
from genie.cni.invoke import Attachment
from genie.config import Conf
from genie.kube import POD_ANNOTATIONS, Kube, Pod
from genie.records import Record, RecordedAttachment, Records
from genie.request import Request
from genie.select import networks
from genie.verbs.trace import StepTimes

if TYPE_CHECKING:
    from genie.cni.result import Result
    from genie.kernel import routes
    from genie.kernel.netlink import Netlink
    from genie.kernel.netns import Conversation
    from genie.select.least_loaded import Reading


T = TypeVar("T")

HERE = 64
"""The limit for one list of a pod's namespace (its routes, for example) that is read without a thread."""

LOCK = ".lock"
"""The suffix of the claim's file, beside the records; it exists while direct mode serves a call for a container."""


class Guard(Protocol):
    """Network policies: sets the rules of a pod's interfaces."""

    async def protect(self, call: Context, pod: Pod, record: Record) -> None:
        """Set the rules for all interfaces of an ADD, before the first of them exists.

        Raises CniError: 11; they cannot be set, and a policy says that the pod must not start then.
        """

    async def release(self, call: Context) -> None:
        """Forget a container, after its DEL."""


class NoGuard:
    """The guard of direct mode if genie.conf asks for network policies: it refuses each ADD."""

    async def protect(self, call: Context, pod: Pod, record: Record) -> None:
        raise invalid(
            "genie.conf: agent", "policy: direct mode enforces no network policies; run the agent, or remove this key"
        )

    async def release(self, call: Context) -> None:
        pass


@dataclass(frozen=True, kw_only=True)
class Context:
    """story: fields for the log line. earlier: an earlier reading of the interface counters. guard: None in direct
    mode, and if there are no network policies.
    """

    request: Request
    conf: Conf
    kube: Kube
    executor: Executor
    story: dict[str, Any]
    steps: StepTimes
    earlier: Reading | None = None
    guard: Guard | None = None

    async def pod(self, *, of_any_uid: bool = False) -> Pod | None:
        """The pod of the request, with the annotations from the runtime, if it passes them; None without Kubernetes.

        of_any_uid: without annotations from the runtime, accept a new pod of the same name.

        Raises CniError: the errors of `Kube.pod`; 7 if the runtime's annotations are malformed.
        """
        args = self.request.args
        namespace, name = args.get("K8S_POD_NAMESPACE", ""), args.get("K8S_POD_NAME", "")
        if not (namespace and name):
            return None
        given = self.conf.runtime_config.get(POD_ANNOTATIONS)
        if given is not None and not (isinstance(given, dict) and all(isinstance(v, str) for v in given.values())):
            raise invalid("genie.conf: runtimeConfig", f"{POD_ANNOTATIONS}: expected an object of strings")
        uid = "" if given is None and of_any_uid else args.get("K8S_POD_UID", "")
        return await self.kube.pod(namespace, name, uid, given)

    @property
    def records(self) -> Records:
        return Records(self.conf.state_dir)

    async def record(self) -> Record | None:
        """The record of the request's container and interface. Raises the errors of `Records.read`."""
        records, key = self.records, (self.request.container_id, self.request.ifname)
        data = records.data(*key)
        return None if data is None else await self.compute(lambda: records.parsed(*key, data), size=len(data))

    async def compute(self, work: Callable[[], T], *, size: int) -> T:
        """See execute.py."""
        return await execute.compute(self.executor, work, size=size)

    @property
    def directory(self) -> networks.Directory:
        return networks.directory(self.conf.conf_dir)

    def container_id(self, own: str, network: NetworkConfig, ifname: str, before: Iterable[str]) -> str:
        """The CNI_CONTAINERID of an attachment: usually the container's own. Some plugins name their resources by the
        ID alone (CNI-Genie #133), without the network's name. If an earlier network of the pod has the same such
        plugin, this one gets an ID derived from the container's and the interface, of the same length.

        before: the plugins' types of the networks before this one.
        """
        if not set(self.conf.container_id_per_interface).intersection(network.types).intersection(before):
            return own
        import hashlib

        return hashlib.sha256(f"{own}@{ifname}".encode()).hexdigest()[: max(len(own), 12)]

    async def claim(self, container_id: str, ifname: str) -> None:
        """Claim a container before anything is done for it: processes that an earlier call for it left running are
        ended.

        Raises CniError: 11; one of them does not end.
        """
        with suppress(CniError):  # a full disk must not stop a DEL; an ADD fails anyway when it writes its record
            self.records.make()
        await self.executor.claim(f"{self.conf.state_dir}/{container_id}@{ifname}{LOCK}")

    @property
    def nowhere(self) -> Attachment:
        """The parameters of a delegate's call for a verb without a container."""
        return Attachment(path=self.request.path, env=self.request.env, timeout=self.conf.delegate_timeout)

    def attachment(self, attached: RecordedAttachment, args: str) -> Attachment:
        """The parameters of a delegate's call. args: CNI_ARGS."""
        return Attachment(
            path=self.request.path,
            env=self.request.env,
            timeout=self.conf.delegate_timeout,
            container_id=attached.container_id,
            netns=self.request.netns,
            ifname=attached.ifname,
            args=args,
            runtime_config=attached.runtime_config,
        )

    async def event(self, pod: Pod, reason: str, message: str, *, warning: bool = False) -> None:
        """Show this with the pod, as an Event (see `Kube.event`). Normal Events are shown only if genie.conf enables
        them.
        """
        if pod.name and (warning or self.conf.events):
            await self.kube.event(pod, reason, message, warning=warning)

    @contextmanager
    def asking_kernel(self, doing: str) -> Iterator[None]:
        """Raise an error of the kernel as CniError 5. doing: the action, for the message."""
        try:
            yield
        except OSError as error:
            raise CniError(Code.IO_FAILURE, f"cannot {doing} in {self.request.netns}: {error}") from error

    async def in_namespace(self, kernel: Conversation, work: Callable[[], T], *, size: int = 0) -> T:
        """Do something with the pod's namespace. If there is much in it, do it in a thread: a pod can have thousands of
        routes, and other pods wait for the event loop.

        work: reads from `kernel` before it changes anything, because it may be begun twice.
        size: of what else will be computed (see `execute.compute`).

        Raises OSError: the kernel refuses it.
        """
        from genie.kernel.netns import MOST, CrowdedError

        if size <= execute.LARGE:
            kernel.most = HERE
            try:
                return work()
            except CrowdedError:
                pass
            finally:
                kernel.most = MOST
        return await self.executor.in_thread(work)

    def conversation(self) -> Conversation:
        """A connection to the kernel for the pod's namespace."""
        from genie.kernel.netns import Conversation

        return Conversation(self.request.entrance)

    def netlink(self) -> Netlink:
        """The same, with routes and rules."""
        from genie.kernel.netlink import Netlink  # a pod of one network does not pay for its import

        return Netlink(self.request.entrance)


def placed(attached: RecordedAttachment, result: Result) -> routes.Placed:
    """An attachment in the form that kernel/routes.py takes."""
    from genie.kernel import routes  # a pod of one network does not pay for its import

    return routes.Placed(
        ifname=attached.ifname,
        result=result,
        wants_default=attached.default_route is not None,
        gateways=attached.default_route or (),
    )
