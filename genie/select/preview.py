"""The effect of an object, before anything is attached: for `genie explain -f` and the admission webhook.

Of a pod, or a pod's template, it is the selection; of other objects, whether genie can read them. The functions are
those of an ADD. Where a node's net.d cannot be seen, `Unseen` stands for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from genie.cni.config import NetworkConfig
from genie.cni.errors import CniError
from genie.cni.fields import invalid
from genie.config import Conf
from genie.kube import NETWORK_OBJECTS, OWNERS, Default, DirectKube, Kube, Pod
from genie.select import logical, networks
from genie.select.annotations import Ask, asks
from genie.select.choose import default_for
from genie.select.networks import Directory
from genie.select.selection import Selection, assemble

#: The kinds of objects that decide networks, in lower case: CNI-Genie's CRDs have `Logicalnetwork`.
_KINDS = {kind.lower(): kind for kind in (*NETWORK_OBJECTS, *OWNERS)}
LOGICAL_KINDS = ("LogicalNetwork", "PhysicalNetwork")
_UNSEEN = "net.d of the node, which is not seen from here"
_ABLE = dict.fromkeys(("ips", "mac", "bandwidth", "portMappings", "infinibandGUID"), True)


class Unseen(Directory):
    """A net.d that cannot be seen: each name that a pod asks for is there, and its plugin can do everything."""

    def __init__(self) -> None:
        super().__init__(_UNSEEN)

    def entries(self) -> Mapping[str, NetworkConfig]:
        return {"first": self.find("the first of net.d")}

    def find(self, name: str) -> NetworkConfig:
        plugin = {"type": "unknown", "capabilities": _ABLE}
        return NetworkConfig(name=name, cni_version="1.0.0", plugins=(plugin,), source=_UNSEEN)

    def now(self) -> Directory:
        return self


class Given(DirectKube):
    """The objects of some files before those of the cluster. node: the one that pods would be on; "" for any.
    offline: there is no cluster.
    """

    def __init__(self, conf: Conf, objects: Sequence[Mapping[str, Any]], *, node: str = "", offline: bool) -> None:
        super().__init__(conf)
        self._node, self._offline = node, offline
        self._objects: dict[tuple[str, str, str], Mapping[str, Any]] = {}
        for each in objects:
            subject = Subject.of(each)
            self._objects[subject.known, subject.namespace, subject.name] = each

    async def network(self, kind: str, namespace: str, name: str, *, needed: bool = False) -> Mapping[str, Any] | None:
        found = self._objects.get((kind, namespace, name))
        return found if found or self._offline else await super().network(kind, namespace, name)

    async def defaults(self, namespace: str) -> Default | None:
        for kind, name in (("Namespace", namespace), ("Node", self._node)):
            if name and (found := Default.of(kind, name, await self.network(kind, "", name))):
                return found
        return None


@dataclass(frozen=True, kw_only=True)
class Subject:
    """An object, as far as it concerns networks. namespace: "" for namespaces and nodes. pod: its pod, or that of its
    template; None for other objects, and if it is on the host's network. limits: how many devices of each resource the
    pod's containers have.
    """

    kind: str
    namespace: str
    name: str
    pod: Pod | None = None
    on_host: bool = False
    limits: Mapping[str, int] = field(default_factory=dict)

    @property
    def known(self) -> str:
        """The kind as genie writes it, if its objects decide networks; otherwise ""."""
        return _KINDS.get(self.kind.lower(), "")

    @classmethod
    def of(cls, data: Any, namespace: str = "default") -> Subject:
        """Read an object. namespace: for one that names none.

        Raises CniError: 7; it has not the form of an object.
        """
        meta = _object(data, "metadata")
        _object(meta, "annotations")
        if not isinstance(kind := data.get("kind"), str):
            raise invalid("object", "expected a kind")
        name = str(meta.get("name") or meta.get("generateName") or "")
        namespace = "" if kind in OWNERS else str(meta.get("namespace") or namespace)
        spec = data.get("spec") if isinstance(data.get("spec"), dict) else {}
        template = data if kind == "Pod" else _template(spec)
        pod_spec = _object(template, "spec")
        if not isinstance(containers := pod_spec.get("containers"), list):
            return cls(kind=kind, namespace=namespace, name=name)
        if pod_spec.get("hostNetwork") is True:
            return cls(kind=kind, namespace=namespace, name=name, on_host=True)
        pod = Pod(namespace=namespace, name=name, annotations=_object(_object(template, "metadata"), "annotations"))
        return cls(kind=kind, namespace=namespace, name=name, pod=pod, limits=_limits(containers))


def _template(spec: Mapping[str, Any]) -> Any:
    """The template of a Deployment and its like, or of a CronJob's jobs; none of other objects."""
    job = _object(_object(spec, "jobTemplate"), "spec") if "jobTemplate" in spec else spec
    return job.get("template") if isinstance(job.get("template"), dict) else {}


def _object(data: Any, key: str) -> Mapping[str, Any]:
    value = data.get(key) if isinstance(data, dict) else None
    if not isinstance(data, dict) or not isinstance(value, dict | None):
        raise invalid("object", f"{key}: expected an object")
    return value or {}


def _limits(containers: Sequence[Any]) -> dict[str, int]:
    found: dict[str, int] = {}
    for each in (_object(_object(one, "resources"), "limits") for one in containers):
        for resource, amount in each.items():
            if str(amount).isdigit():
                found[resource] = found.get(resource, 0) + int(amount)
    return found


async def preview(
    subject: Subject,
    conf: Conf,
    kube: Kube,
    directory: Directory,
    path: Sequence[str] | None = None,
    *,
    others: Sequence[Mapping[str, Any]] = (),
) -> Selection | None:
    """The networks that the subject's pod would get; None if it is no pod, but genie can read it.

    path: the directories of plugins; None: they are not seen from here. others: the Logicalnetworks and
    Physicalnetworks that `kube` has, to compare such a subject with.

    Raises CniError: the one that the pod would get; or one for a mistake in the object.
    """
    if subject.pod is not None:
        return await _of_pod(subject, subject.pod, kube, directory, path, conf=conf)
    kind, namespace, name = subject.known, subject.namespace, subject.name
    if kind in OWNERS:
        default = Default.of(kind, name, await kube.network(kind, "", name))
        someone = Pod(namespace=name if kind == "Namespace" else "default", name="")
        if default:
            asked = asks(someone, conf, default)
            assemble(asked, await networks.find(asked.primary, kube, directory, someone.namespace, path))
    elif kind == "NetworkAttachmentDefinition":
        definition = await kube.network(kind, namespace, name)
        network = networks.from_definition(definition or {}, namespace, name, directory)
        if why := networks.rival(network):
            raise invalid(network.source, why)
    elif kind:
        if kind == "PhysicalNetwork":
            (await logical.read_physical(kube, namespace, name))[0].over(Unseen().find(name))
        for each in of_same_physical(subject, others):
            await _apart(each, others, kube)
    return None


def of_same_physical(subject: Subject, objects: Iterable[Mapping[str, Any]]) -> list[Subject]:
    """The Logicalnetworks that an object decides: itself, or those of the Physicalnetwork that it is."""
    if subject.known == "LogicalNetwork":
        return [subject]
    return [
        one
        for data in objects
        if (one := Subject.of(data)).known == "LogicalNetwork"
        and one.namespace == subject.namespace
        and (data.get("spec") or {}).get("physicalNet") == subject.name
    ]


async def _apart(subject: Subject, objects: Iterable[Mapping[str, Any]], kube: Kube) -> None:
    """Refuse a subnet that overlaps another's of the same plugin over the same interface.

    Raises CniError: 7; it overlaps, or cannot be read.
    """
    own = await logical.read(kube, subject.namespace, subject.name)
    own.over(Unseen().find(own.plugin))
    for data in objects:
        other = Subject.of(data)
        if other.known != "LogicalNetwork" or (other.namespace, other.name) == (subject.namespace, subject.name):
            continue
        try:
            its = await logical.read(kube, other.namespace, other.name)
        except CniError:
            continue  # it is broken itself
        if (its.plugin, its.interface) == (own.plugin, own.interface) and logical.overlap(own.subnet, its.subnet):
            raise invalid(own.where, f"subnet {own.subnet} overlaps {its.subnet} of {its.where}, also by {own.plugin}")


async def _of_pod(
    subject: Subject, pod: Pod, kube: Kube, directory: Directory, path: Sequence[str] | None, *, conf: Conf
) -> Selection:
    async def devices() -> dict[str, list[str]]:
        return {key: [f"{key}-{n}" for n in range(min(count, 128))] for key, count in subject.limits.items()}

    asked = asks(pod, conf, await default_for(pod, conf, kube))
    if smart := asked.smart:
        asked = replace(asked, primary=(Ask(name="", where='annotation cni ("")', lookup="first"),), smart=False)
    found = await networks.find(
        asked.primary + asked.extra, kube, directory, pod.namespace, path, devices=devices
    )  # fmt: skip
    if smart:
        unknown = replace(found[0], network=Unseen().find("the least loaded"), label="the least loaded")
        found = [unknown, *found[1:]]
    return assemble(asked, found, drop_undeclared=conf.drop_undeclared)
