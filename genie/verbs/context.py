"""One call in progress: what every verb needs to know."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from genie.cni.config import NetworkConfig
from genie.cni.errors import CniError, Code
from genie.cni.execute import Executor
from genie.cni.fields import invalid
from genie.cni.invoke import Attachment
from genie.config import Conf
from genie.kube import POD_ANNOTATIONS, Kube, Pod
from genie.records import RecordedAttachment, Records
from genie.request import Request
from genie.select import networks
from genie.verbs.trace import StepTimes

if TYPE_CHECKING:
    from genie.cni.result import Result
    from genie.kernel import routes
    from genie.kernel.netlink import Netlink
    from genie.kernel.netns import Conversation
    from genie.select.least_loaded import Reading


LOCK = ".lock"
"""The ending of the file, among the records, that is there while direct mode serves a call for a container."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """story: fields for the log line. earlier: an earlier reading of the interface counters."""

    request: Request
    conf: Conf
    kube: Kube
    executor: Executor
    story: dict[str, Any]
    steps: StepTimes
    earlier: Reading | None = None

    async def pod(self, *, of_any_uid: bool = False) -> Pod | None:
        """The pod that the runtime means, with the annotations that it hands over, if it does; None without Kubernetes.

        Args:
            of_any_uid: a pod that was made again under the name will do, where the runtime hands over none.

        Raises:
            CniError: as `Kube.pod`; 7 for annotations of the runtime's that are none.
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

    @property
    def directory(self) -> networks.Directory:
        return networks.directory(self.conf.conf_dir)

    def container_id(self, own: str, network: NetworkConfig, ifname: str, before: Iterable[NetworkConfig]) -> str:
        """The CNI_CONTAINERID of an attachment: the container's own, unless a network attached before it has a plugin
        in common that names things after the ID alone (CNI-Genie #133); then one derived from it and the interface, of
        the same length. Such a plugin does not look at the network's name, so networks of different names share it.
        """
        taken = {kind for earlier in before for kind in earlier.types}
        if not taken.intersection(network.types, self.conf.container_id_per_interface):
            return own
        import hashlib

        return hashlib.sha256(f"{own}@{ifname}".encode()).hexdigest()[: max(len(own), 12)]

    async def claim(self, container_id: str, ifname: str) -> None:
        """Before anything is done about a container: what an earlier call for it has left running ends.

        Raises:
            CniError: 11; it does not end.
        """
        with suppress(CniError):  # a full disk keeps no DEL from its work, and is an ADD's error when it writes
            self.records.make()
        await self.executor.claim(f"{self.conf.state_dir}/{container_id}@{ifname}{LOCK}")

    def attachment(self, attached: RecordedAttachment, args: str) -> Attachment:
        """The parameters of a delegate's call. args: CNI_ARGS."""
        return Attachment(
            container_id=attached.container_id,
            netns=self.request.netns,
            ifname=attached.ifname,
            args=args,
            path=self.request.path,
            runtime_config=attached.runtime_config,
            env=self.request.env,
        )

    async def event(self, pod: Pod, reason: str, message: str, *, warning: bool = False) -> None:
        """Show this with the pod, as an Event (see `Kube.event`). What went well is shown if genie.conf wants it."""
        if pod.name and (warning or self.conf.events):
            await self.kube.event(pod, reason, message, warning=warning)

    @contextmanager
    def asking_kernel(self, doing: str) -> Iterator[None]:
        """Raise what the kernel refuses as CniError 5, which says what was being done."""
        try:
            yield
        except OSError as error:
            raise CniError(Code.IO_FAILURE, f"cannot {doing} in {self.request.netns}: {error}") from error

    def conversation(self) -> Conversation:
        """With the kernel, about the pod's namespace."""
        from genie.kernel.netns import Conversation

        return Conversation(self.request.entrance)

    def netlink(self) -> Netlink:
        """The same about its routes and rules, too."""
        from genie.kernel.netlink import Netlink  # a pod of one network does not pay for its import

        return Netlink(self.request.entrance)


def placed(attached: RecordedAttachment, result: Result) -> routes.Placed:
    """An attachment as the routes of its pod are decided by it."""
    from genie.kernel import routes  # a pod of one network does not pay for its import

    return routes.Placed(
        ifname=attached.ifname,
        result=result,
        wants_default=attached.default_route is not None,
        gateways=attached.default_route or (),
    )
