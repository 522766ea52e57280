"""Reads descriptions of networks: files under fixtures/networks/, and vendors' profiles.

Each network has one file, with one section for each kind of cluster. A missing section means that this kind lacks it:

    network: weave            # the name that scenarios and annotations use
    embedded: …               # on the embedded cluster: `Embedded`, below
    cluster: …                # on a real cluster: `Software`, in cluster/software.py

An `embedded:` section is a CNI configuration, with the links and routes that a node needs for it. Its strings can hold
jinja2 expressions with these names:

    node.number, node.name, node.address, node.interface   the node (from 1), its address and interface on the underlay
    node.kubeconfig, node.vxlan                            for a daemon: an administrator's; whether there is VXLAN
    peer.number, peer.name, peer.address                   in `routes`: each of the other nodes in turn
    node.address6, peer.address6                           their IPv6 addresses on the underlay

A stand-in's section can describe the real software as `real:`, with the daemon for every node. It is used if its
programs are on the machine and can run; they are never downloaded.

For a plugin that is a binary and needs nothing else on the node, such a file with `kind: real` is a profile. The binary
must be in a directory that embedded/binaries.py searches.
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
from harness.values import change_texts, ipv6_of, subnets, texts
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
    """A bridge for all pods of the network, made before the first pod."""

    bridge: str
    address: str = ""
    mtu: int = 1500


class Vxlan(Section):
    """A VXLAN device to all other nodes: a port of a bridge, or with an address."""

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
    """The files and routes that exist when a daemon is ready on a node."""

    files: tuple[str, ...] = Field(default=(), description="Files.")
    routes: str = Field(default="", description="A route to each other node's part of the network.")


class Real(Section):
    """The real software of a stand-in: the fields that differ from the stand-in's section."""

    software: str = Field(description="As the stand-in's; {{ version }} is the daemon's.")
    plugins: tuple[str, ...] = Field(description="Plugin binaries that it needs.")
    conf: dict[str, Any] = Field(description="The CNI configuration.")
    daemon: tuple[str, ...] = Field(description="The command that runs on every node.", min_length=1)
    needs: tuple[tuple[str, ...], ...] = Field((), description="Commands that must succeed for the daemon to work.")
    environment: dict[str, str] = Field({}, description="The daemon's variables, in addition to PATH.")
    files: dict[str, str] = Field({}, description="Files that the daemon reads: path on the node to text.")
    pod_subnet: str = Field("", alias="pod-subnet", description="The node's part of the network: its spec.podCIDR.")
    ready: Ready = Field(Ready(), description="When pods can be attached.")


class Embedded(Section):
    """A network on the embedded cluster."""

    kind: Literal["real", "stand-in"] = Field(description="real: the named software; stand-in: other software.")
    software: str = Field(description="The software that really runs, for reports.")
    plugins: tuple[str, ...] = Field(description="Plugin binaries that it needs.")
    subnets: tuple[str, ...] = Field(description="Every address is in one of these.")
    default_route: bool = Field(True, alias="default-route", description="Whether its plugin sets a default route.")
    file: str = Field(
        description="The name of the configuration file in net.d.", pattern=r"^[^/]+\.(conf|conflist|json)$"
    )
    conf: dict[str, Any] = Field(description="The configuration.")
    setup: tuple[Bridge | Vxlan | PeerRoutes, ...] = Field(
        (),
        description="Further needs of a node. By default: a route to each `subnet` that only another node's conf has.",
    )
    container_id_per_interface: tuple[str, ...] = Field(
        (),
        alias="container-id-per-interface",
        description="Plugins that identify an attachment by the container's ID alone, as in genie.conf.",
    )
    real: Real | None = Field(None, description="For a stand-in: the real software, used if it is available.")

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


class ConformanceDaemon(Section):
    """A program of the network that runs on a node; for `harness conformance`, on the machine of each check."""

    run: str = Field(description="Its command, as in a shell; a relative path begins at the profile's directory.")
    ready: str = Field(
        default="", description="The path of a file or socket that exists when it is ready.", pattern=r"^(/.*)?$"
    )


class Conformance(Section):
    """Settings for `harness conformance`."""

    plugin: str = Field(
        default="", description="The type of the plugin to test, if there are several; by default the first."
    )
    claims: tuple[str, ...] = Field(default=(), description="Extended features to test.")
    stays: tuple[str, ...] = Field(
        default=(), description="Interfaces that all containers share and that stay by design."
    )
    daemons: tuple[ConformanceDaemon, ...] = Field(
        default=(), description="Programs that the plugin needs on the node, started in this order."
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
    """A node, as templates see it."""

    number: int
    name: str
    address: str
    interface: str = "eth0"
    kubeconfig: str = "/etc/kubernetes/admin-kubeconfig"
    vxlan: bool = True

    @property
    def address6(self) -> str:
        """Its IPv6 address on the underlay."""
        return ipv6_of(self.address)


def load(profiles: Iterable[Path] = (), folder: Path = FIXTURES / "networks") -> dict[str, Network]:
    """The networks of a folder and of further files, by name; a later file replaces an earlier one of the same name.

    Raises ProfileError: a file cannot be read or is not valid.
    """
    networks = {}
    for path in [*sorted(folder.glob("*.yaml")), *profiles]:
        network = read(path)
        networks[network.network] = network
    return networks


def read(path: Path) -> Network:
    """One network's file.

    Raises ProfileError: it cannot be read or is not valid.
    """
    return located(path)[0]


def located(path: Path) -> tuple[Network, YamlFile]:
    """One network's file, with the places of its values.

    Raises ProfileError: it cannot be read or is not valid.
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
    """The errors of a section's model, each with its place in the file.

    under: the path of the section in the file.
    """
    found = []
    for item in error.errors():
        loc = (*under, *(part for part in item["loc"] if part not in ("Bridge", "Vxlan", "PeerRoutes")))
        found.append(source.worded({**item, "loc": loc}, _keys(model, item["loc"])))
    return found


def _keys(model: type[BaseModel], loc: Sequence[str | int]) -> list[str]:
    """The valid keys of the section that has an unknown one."""
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


def _places(value: Any, text: str) -> Iterator[tuple[str | int, ...]]:
    """Where a text is in the values of a file."""
    return (loc for loc, found in texts(value) if found == text)


def _evaluate(network: Network) -> None:
    """Raise ProfileError if an expression cannot be evaluated, while the file's name is known."""
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

    Raises ProfileError: an expression in it cannot be evaluated.
    """
    rendered: dict[str, Any] = _render(network.conf, {"node": node})
    return rendered


def setup(network: Embedded, node: Place, peers: Sequence[Place]) -> list[dict[str, Any]]:
    """The links and routes to make on a node for a network, in order, as plain data for `harness.embedded.links`.

    Raises ProfileError: an expression in it cannot be evaluated.
    """
    steps: list[dict[str, Any]] = []
    if "setup" not in network.model_fields_set:
        own = set(subnets(conf(network, node)))
        for peer in peers:
            steps += [
                PeerRoutes(routes=subnet, via=peer.address6 if ":" in subnet else peer.address).model_dump()
                for subnet in subnets(conf(network, peer))
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


def stand_in(network: Embedded) -> Embedded:
    """The network without the `real:` section."""
    return network.model_copy(update={"real": None})


def itself(network: Embedded, version: str, node: Place) -> Embedded:
    """The network as real software, with this version of the daemon; `node` is any of the nodes.

    Raises ProfileError: an expression in it cannot be evaluated.
    """
    assert network.real is not None
    software = _render(network.real.software, {"version": version, "node": node})
    own = {"plugins": network.real.plugins, "conf": network.real.conf, "setup": ()}
    return network.model_copy(update={"kind": "real", "software": software, **own})


def daemon(real: Real, node: Place, peers: Sequence[Place]) -> dict[str, Any]:
    """A daemon on a node, as plain data for `harness.embedded.plan.DaemonPlan`.

    Raises ProfileError: an expression in it cannot be evaluated.
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
    """The node's spec.podCIDRs that the network sets.

    Raises ProfileError: an expression in it cannot be evaluated.
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
