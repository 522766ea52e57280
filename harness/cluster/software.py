"""A network's software on a real cluster: the `cluster:` section of a file under fixtures/networks/, and its objects.

There are two kinds of networks. Some come as manifests from their vendor: pinned, and patched so that several can share
a cluster. Others (bridge, ptp, macvlan) are only a configuration on each node; the harness adds binaries and routes.
Nothing here touches a cluster, so the tests need none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError

from harness import catalog
from harness.catalog import Network, ProfileError, Section
from harness.contract import Tidying
from harness.download import Download
from harness.model import Pattern
from harness.values import change_texts, merged
from harness.yamlfile import Mistake, YamlFile

Object = dict[str, Any]

_BORROWED = re.compile(r"\{\{ *image of ([a-z-]+) *\}\}")


class Manifest(Section):
    """A vendor's manifest, unchanged from its release."""

    urls: tuple[str, ...] = Field(description="URLs with the same content, best first.")
    sha256: str = Field(pattern="^[0-9a-f]{64}$")

    def objects(self) -> list[Object]:
        """Its objects.

        Raises NotHad: it cannot be downloaded.
        """
        text = Download(urls=self.urls, checksum=f"sha256:{self.sha256}").get().read_text()
        documents = [document for document in yaml.safe_load_all(text) if document]
        return [item for thing in documents for item in (thing["items"] if thing["kind"] == "List" else [thing])]


class Patch(Section):
    """A change to some of a manifest's objects: merged into them, or `drop` to leave them out."""

    kind: str
    name: str = Field("", description="Empty: every object of that kind.")
    why: str = Field(description="The problem that this patch prevents.")
    drop: bool = False
    merge: dict[str, Any] = Field(
        {}, description="Merged like kubectl's strategic merge: lists of named objects are merged by name."
    )
    json_in: dict[str, dict[str, Any]] = Field(
        {},
        alias="json-in",
        description="For a ConfigMap: for each key of its data, an object to merge into the JSON there.",
    )

    def fits(self, thing: Object) -> bool:
        return bool(thing["kind"] == self.kind and self.name in ("", thing["metadata"]["name"]))

    def on(self, thing: Object) -> Object:
        """A matching object, changed."""
        thing = merge(thing, self.merge)
        data = {
            key: json.dumps(merge(json.loads(thing["data"][key]), change), indent=2)
            for key, change in self.json_in.items()
        }
        return merge(thing, {"data": data}) if data else thing


class Rollout(Section):
    """A rollout that must be complete before the network works."""

    kind: Literal["DaemonSet", "Deployment"]
    namespace: str
    name: str


class NodeBridge(Section):
    """A bridge for all pods of the network, made on each node before any plugin needs it."""

    name: str
    address: str


class NodeConf(Section):
    """A configuration that the harness writes to each node; `{n}` in a string is the node's number, from 1."""

    content: dict[str, Any]
    bridge: NodeBridge | None = None
    routes: str = Field("", description="The node's subnet of this network; all other nodes get a route to it.")


class Tidies(Section):
    """Entries of the nodes' inventories that the network's daemon removes by itself, some time after a pod is gone."""

    matches: Pattern = Field(description="It matches in an entry, which begins with its kind, such as `netfilter: `.")
    within: float = Field(gt=0, description="Seconds that the daemon may take.")
    why: str


class Software(Section):
    """A network on a real cluster."""

    software: str = Field(description="The software that really runs, for reports.")
    conf: str = Field(description="The name of its configuration in net.d: the node is ready when this file exists.")
    subnets: tuple[str, ...]
    default_route: bool = Field(True, alias="default-route", description="Whether its plugin sets a default route.")
    first_only: str = Field(
        "",
        alias="first-only",
        description="Why it works only as a pod's first network; empty if there is no such limit.",
    )
    manifests: tuple[Manifest, ...] = ()
    patches: tuple[Patch, ...] = ()
    own_objects: tuple[Object, ...] = Field(
        (), alias="objects", description="Further objects that the vendor expects to exist."
    )
    ready: tuple[Rollout, ...] = ()
    plugins: tuple[str, ...] = Field((), description="Binaries of containernetworking/plugins that it needs.")
    node_conf: NodeConf | None = Field(None, alias="node-conf")
    tidies: tuple[Tidies, ...] = ()
    conflicts: tuple[str, ...] = Field((), description="Networks that cannot share a node with it.")
    conflict_reason: str = Field("", alias="conflict-reason")
    on_request: bool = Field(False, alias="on-request", description="Installed only if requested by name.")

    @property
    def daemons(self) -> tuple[str, ...]:
        """Its DaemonSets, as NAMESPACE/NAME."""
        return tuple(f"{each.namespace}/{each.name}" for each in self.ready if each.kind == "DaemonSet")

    @property
    def tidying(self) -> tuple[Tidying, ...]:
        """The same for a cluster's facts."""
        return tuple(Tidying(**each.model_dump()) for each in self.tidies)

    def objects(self) -> list[Object]:
        """The patched objects of all its manifests, and its further objects.

        Raises NotHad: a manifest cannot be downloaded.
        Raises ValueError: a patch matches no object, for example after a change of version.
        """
        vendors = [thing for manifest in self.manifests for thing in manifest.objects()]
        return [*patched(vendors, self.patches), *self.own_objects]


def patched(objects: list[Object], patches: tuple[Patch, ...]) -> list[Object]:
    """Objects with patches applied. A patch without a match is an error: it was written for another version."""
    for patch in patches:
        if not any(patch.fits(thing) for thing in objects):
            raise ValueError(f"patch for {patch.kind} {patch.name or '(any)'}: no such object in the manifest")
        objects = [
            patch.on(thing) if patch.fits(thing) else thing
            for thing in objects
            if not (patch.drop and patch.fits(thing))
        ]
    return objects


def merge(value: Object, change: Mapping[str, Any]) -> Object:
    """An object with a change merged into it; lists of named objects are merged by name. null removes a key; `$patch:
    delete` removes an item from a list.
    """
    return merged(value, change, _merge_lists)


def _merge_lists(old: Any, new: list[Any]) -> list[Any]:
    if not (_named(new) and (old is None or _named(old))):
        return new
    items: list[Object] = list(old or [])
    for change in new:
        at = next((place for place, item in enumerate(items) if item["name"] == change["name"]), None)
        if change.get("$patch") == "delete":
            items = [item for item in items if item["name"] != change["name"]]
        elif at is None:
            items.append(change)
        else:  # an environment variable has either a value or a source, so the new one replaces the old
            items[at] = change if {"value", "valueFrom"} & change.keys() else merge(items[at], change)
    return items


def _named(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) and "name" in item for item in value)


def images(objects: list[Object]) -> tuple[str, ...]:
    """All images that objects need, without duplicates and without those that the nodes have already."""
    return tuple(image for image in dict.fromkeys(_images(objects)) if not _BORROWED.fullmatch(image))


def borrowed(objects: list[Object]) -> frozenset[str]:
    """The parts of the control plane that objects take images from: `{{ image of etcd }}`."""
    return frozenset(found[1] for image in _images(objects) if (found := _BORROWED.fullmatch(image)))


def with_borrowed(objects: list[Object], lent: Mapping[str, str]) -> list[Object]:
    """Objects with the control plane's images filled in.

    lent: the image for each part of the control plane.
    """
    text = _BORROWED.sub(lambda found: lent[found[1]], json.dumps(objects))
    return list(json.loads(text))


def _images(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key in ("initContainers", "containers"):
            for container in value.get(key) or []:
                if isinstance(container, Mapping) and isinstance(container.get("image"), str):
                    yield container["image"]
        for inner in value.values():
            yield from _images(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _images(inner)


def for_node(value: Any, number: int) -> Any:
    """A configuration for one node: `{n}` replaced in every string."""
    return change_texts(value, lambda text: text.replace("{n}", str(number)))


def mistakes(source: YamlFile, section: Any) -> list[Mistake]:
    """What is wrong with the `cluster:` section of a file, each at its place."""
    try:
        Software.model_validate(section)
    except ValidationError as error:
        return catalog.mistakes(source, error, Software, ("cluster",))
    return []


def known(networks: Mapping[str, Network]) -> dict[str, Software]:
    """The networks with a `cluster:` section.

    Raises ProfileError: a `cluster:` section is not valid.
    """
    found = {}
    for name, network in networks.items():
        if network.cluster is not None:
            try:
                found[name] = Software.model_validate(network.cluster)
            except ValidationError as error:
                raise ProfileError(f"network {name}: cluster: {error}") from error
    return found
