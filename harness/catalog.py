"""Networks: what a file under fixtures/networks/, or a vendor's profile, has of one.

One file a network, one section a kind of cluster, so that a network can be had on some and not on others:

    network: weave            # the name that scenarios and annotations use
    embedded: …               # on the embedded cluster: `Embedded`, below
    cluster: …                # on a real cluster: `Software`, in cluster/software.py, which reads and checks it

An `embedded:` section is a CNI configuration with what a node must have for it. Any string in it may hold jinja2
expressions, of these:

    node.number, node.name, node.address, node.interface   the node (from 1), its address and interface on the underlay
    node.kubeconfig, node.vxlan                            for a daemon: an administrator's; whether there is VXLAN
    peer.number, peer.name, peer.address                   in `routes`: each of the other nodes in turn

A stand-in's section can have the software itself below it, as `real:`, with the daemon that it runs on every node. It
is taken where its programs are on the machine and can run; they are never fetched.

A vendor whose plugin is a binary that needs nothing else on the node writes such a file, with `kind: real`, puts the
binary where `plugins` is looked for (see embedded/binaries.py), and has a profile.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import jinja2
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from harness.download import FIXTURES
from harness.values import change_texts
from harness.yamlfile import Mistake, Mistakes, YamlFile


class ProfileError(Exception):
    """A network's file cannot be used; the message has file, line, column and field of each mistake."""

    def __init__(self, message: str, mistakes: Sequence[Mistake] = ()) -> None:
        super().__init__(message)
        self.mistakes = tuple(mistakes)

    @classmethod
    def of(cls, mistakes: Iterable[Mistake]) -> ProfileError:
        """The error of a file with these mistakes."""
        found = sorted(set(mistakes))
        return cls("\n".join(map(str, found)), found)


class _Unclear(ProfileError):
    """An expression cannot be evaluated."""

    def __init__(self, message: str, text: str) -> None:
        super().__init__(message)
        self.text = text


class Section(BaseModel):
    """A part of a network's file: no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Bridge(Section):
    """A bridge that stands for all pods of the network, so that the first pod's plugin does not have to make it."""

    bridge: str
    address: str = ""
    mtu: int = 1500


class Vxlan(Section):
    """A VXLAN device to all other nodes: a port of a bridge, or with an address of its own."""

    vxlan: str
    id: int
    port: int
    mtu: int = 1450
    bridge: str = ""
    address: str = ""


class PeerRoutes(Section):
    """A route to each other node's part of the network; `via` its underlay address, or over a device to `via`."""

    routes: str
    via: str = "{{ peer.address }}"
    over: str = ""


class Ready(Section):
    """When a daemon has done its part on a node: all of it must be there."""

    files: tuple[str, ...] = Field(default=(), description="Files.")
    routes: str = Field(default="", description="A route to each other node's part of the network.")


class Real(Section):
    """The software that a stand-in stands for, with what differs from the stand-in's section."""

    software: str = Field(description="As the stand-in's; {{ version }} is the daemon's.")
    plugins: tuple[str, ...] = Field(description="Plugin binaries that it needs.")
    conf: dict[str, Any] = Field(description="The CNI configuration.")
    daemon: tuple[str, ...] = Field(description="The command that runs on every node.", min_length=1)
    needs: tuple[tuple[str, ...], ...] = Field((), description="Commands that must succeed for the daemon to work.")
    environment: dict[str, str] = Field({}, description="The daemon's, beside PATH.")
    files: dict[str, str] = Field({}, description="Files that the daemon reads: path on the node to text.")
    pod_subnet: str = Field("", alias="pod-subnet", description="What of the network is the node's: its spec.podCIDR.")
    ready: Ready = Field(Ready(), description="When pods can be attached.")


class Embedded(Section):
    """A network on the embedded cluster."""

    kind: Literal["real", "stand-in"] = Field(description="Whether this is the software that the name stands for.")
    software: str = Field(description="What really runs, for reports.")
    plugins: tuple[str, ...] = Field(description="Plugin binaries that it needs.")
    subnets: tuple[str, ...] = Field(description="Every address lies in one of them.")
    default_route: bool = Field(
        True, alias="default-route", description="Whether its plugin sets a default route itself."
    )
    file: str = Field(description="The configuration's file in net.d.", pattern=r"^[^/]+\.(conf|conflist|json)$")
    conf: dict[str, Any] = Field(description="The configuration.")
    setup: tuple[Bridge | Vxlan | PeerRoutes, ...] = Field(
        (),
        description="What a node needs beside it. Where it is left out: a route to each `subnet` that the conf "
        "has on another node alone.",
    )
    container_id_per_interface: tuple[str, ...] = Field(
        (),
        alias="container-id-per-interface",
        description="Plugins that identify an attachment by the container's ID alone, as in genie.conf.",
    )
    real: Real | None = Field(None, description="Of a stand-in: the software itself, where that can be had.")

    @field_validator("subnets")
    @classmethod
    def _are_subnets(cls, subnets: tuple[str, ...]) -> tuple[str, ...]:
        for subnet in subnets:
            try:
                ipaddress.ip_network(subnet)
            except ValueError as error:
                raise ValueError(f"expected subnets such as 10.77.0.0/16: {error}") from error
        return subnets

    @field_validator("conf")
    @classmethod
    def _has_name(cls, conf: dict[str, Any]) -> dict[str, Any]:
        if not conf.get("name") or not (conf.get("type") or conf.get("plugins")):
            raise ValueError("a CNI configuration has a name, and a type or plugins")
        return conf


class Conformance(Section):
    """What `harness conformance` is to know of the plugin."""

    plugin: str = Field(default="", description="The type to test, of a list of several plugins; by default the first.")
    claims: tuple[str, ...] = Field(default=(), description="Extended features to test.")
    stays: tuple[str, ...] = Field(
        default=(), description="Interfaces that stand for all containers and stay by design."
    )


class Network(Section):
    """One file."""

    network: str = Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    embedded: Embedded | None = None
    cluster: dict[str, Any] | None = Field(None, description="See cluster/software.py.")
    conformance: Conformance = Conformance()

    @model_validator(mode="after")
    def _is_somewhere(self) -> Network:
        if self.embedded is None and self.cluster is None:
            raise ValueError("a network is described by an `embedded` or a `cluster` section, or both")
        return self


@dataclass(frozen=True, kw_only=True)
class Place:
    """A node, to templates."""

    number: int
    name: str
    address: str
    interface: str = "eth0"
    kubeconfig: str = "/etc/kubernetes/admin-kubeconfig"
    vxlan: bool = True


def load(profiles: Iterable[Path] = (), folder: Path = FIXTURES / "networks") -> dict[str, Network]:
    """The networks of a folder and of further files, by name; a later file replaces an earlier one of the same name.

    Raises:
        ProfileError: a file cannot be read or is not valid.
    """
    networks = {}
    for path in [*sorted(folder.glob("*.yaml")), *profiles]:
        network = read(path)
        networks[network.network] = network
    return networks


def read(path: Path) -> Network:
    """One network's file.

    Raises:
        ProfileError: it cannot be read or is not valid.
    """
    return located(path)[0]


def located(path: Path) -> tuple[Network, YamlFile]:
    """One network's file, with the places of its values.

    Raises:
        ProfileError: it cannot be read or is not valid.
    """
    try:
        source = YamlFile.read(path)
    except Mistakes as error:
        raise ProfileError.of(error.mistakes) from error
    try:
        network = Network.model_validate(source.values)
    except ValidationError as error:
        raise ProfileError.of(mistakes(source, error, Network)) from error
    if unclear := list(_unclear(source)):
        raise ProfileError.of(unclear)
    try:
        _evaluate(network)
    except _Unclear as error:
        at = next(_places(source.values, error.text), ("embedded",))
        raise ProfileError.of([source.mistake(at, str(error))]) from error
    return network, source


def mistakes(
    source: YamlFile, error: ValidationError, model: type[BaseModel], under: tuple[str, ...] = ()
) -> list[Mistake]:
    """What a section's model finds wrong, each at its place in the file.

    Args:
        under: where in the file the section is.
    """
    found = []
    for item in error.errors():
        loc = (*under, *(part for part in item["loc"] if part not in ("Bridge", "Vxlan", "PeerRoutes")))
        found.append(source.worded({**item, "loc": loc}, _keys(model, item["loc"])))
    return found


def _keys(model: type[BaseModel], loc: Sequence[str | int]) -> list[str]:
    """The keys that a section may have where an unknown one is."""
    for part in loc[:-1]:
        of = {field.alias or name: field.annotation for name, field in model.model_fields.items()}
        inner = list(_kinds(of.get(str(part))))
        named = {kind.__name__: kind for kind in (Bridge, Vxlan, PeerRoutes)}
        model = named.get(str(part)) or (inner[0] if inner else model)
    return [field.alias or name for name, field in model.model_fields.items()]


def _kinds(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models in a type."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _kinds(inner)


def _unclear(source: YamlFile) -> Iterator[Mistake]:
    """Expressions of the configuration that cannot be evaluated."""
    node = Place(number=1, name="node", address="172.30.0.1")
    for loc, text in texts((source.values.get("embedded") or {}).get("conf"), ("embedded", "conf")):
        try:
            _rendered(text, {"node": node})
        except ProfileError as error:
            yield source.mistake(loc, str(error))


def texts(value: Any, loc: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Every text in a value, with where it is."""
    if isinstance(value, str):
        yield loc, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from texts(item, (*loc, key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from texts(item, (*loc, index))


def _places(value: Any, text: str) -> Iterator[tuple[str | int, ...]]:
    """Where a text is in the values of a file."""
    return (loc for loc, found in texts(value) if found == text)


def _evaluate(network: Network) -> None:
    """Raise ProfileError if an expression cannot be evaluated: while it is known which file it is in."""
    node, peer = (Place(number=number, name="node", address="172.30.0.1") for number in (1, 2))
    for section in [network.embedded] if network.embedded else []:
        conf(section, node)
        setup(section, node, [peer])
        if section.real:
            conf(itself(section, "v1", node), node)
            daemon(section.real, node, [peer])
            pod_subnets(section, node)


def conf(network: Embedded, node: Place) -> dict[str, Any]:
    """The CNI configuration of a network on a node.

    Raises:
        ProfileError: an expression in it cannot be evaluated.
    """
    rendered: dict[str, Any] = _render(network.conf, {"node": node})
    return rendered


def setup(network: Embedded, node: Place, peers: Sequence[Place]) -> list[dict[str, Any]]:
    """What to make on a node for a network, in order, as plain data for `harness.embedded.links`.

    Raises:
        ProfileError: an expression in it cannot be evaluated.
    """
    steps: list[dict[str, Any]] = []
    if "setup" not in network.model_fields_set:
        own = set(_subnets(conf(network, node)))
        for peer in peers:
            steps += [
                PeerRoutes(routes=subnet, via=peer.address).model_dump()
                for subnet in _subnets(conf(network, peer))
                if subnet not in own
            ]
    for step in network.setup:
        data = step.model_dump()
        if isinstance(step, PeerRoutes):
            steps += [_render(data, {"node": node, "peer": peer}) for peer in peers]
        elif isinstance(step, Vxlan):
            steps.append(
                {**_render(data, {"node": node}), "local": node.address, "peers": [peer.address for peer in peers]}
            )
        else:
            steps.append(_render(data, {"node": node}))
    return steps


def _subnets(conf: Any) -> Iterator[str]:
    """The IPv4 subnets that a configuration names."""
    if isinstance(conf, Mapping):
        subnet = conf.get("subnet")
        if isinstance(subnet, str) and "/" in subnet and ":" not in subnet:
            yield subnet
    for item in conf.values() if isinstance(conf, Mapping) else conf if isinstance(conf, list) else ():
        yield from _subnets(item)


def stand_in(network: Embedded) -> Embedded:
    """The network without the software itself."""
    return network.model_copy(update={"real": None})


def itself(network: Embedded, version: str, node: Place) -> Embedded:
    """The network as the software itself, whose daemon has that version; `node` is any of them.

    Raises:
        ProfileError: an expression in it cannot be evaluated.
    """
    assert network.real is not None
    software = _render(network.real.software, {"version": version, "node": node})
    own = {"plugins": network.real.plugins, "conf": network.real.conf, "setup": ()}
    return network.model_copy(update={"kind": "real", "software": software, **own})


def daemon(real: Real, node: Place, peers: Sequence[Place]) -> dict[str, Any]:
    """A daemon on a node, as plain data for `harness.embedded.plan.DaemonPlan`.

    Raises:
        ProfileError: an expression in it cannot be evaluated.
    """
    names = {"node": node}
    return {
        "command": _render(list(real.daemon), names),
        "environment": _render(real.environment, names),
        "files": _render(real.files, names),
        "ready_files": list(real.ready.files),
        "ready_routes": [_render(real.ready.routes, {**names, "peer": peer}) for peer in peers if real.ready.routes],
    }


def pod_subnets(network: Embedded, node: Place) -> list[str]:
    """The node's spec.podCIDRs as far as the network has a word in it.

    Raises:
        ProfileError: an expression in it cannot be evaluated.
    """
    return [_render(network.real.pod_subnet, {"node": node})] if network.real and network.real.pod_subnet else []


_templates = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)


def _render(value: Any, names: Mapping[str, Any]) -> Any:
    return change_texts(value, lambda text: _rendered(text, names))


def _rendered(text: str, names: Mapping[str, Any]) -> str:
    try:
        return _templates.from_string(text).render(names) if "{" in text else text
    except jinja2.TemplateError as error:
        raise _Unclear(f"{text!r}: {error}", text) from error
