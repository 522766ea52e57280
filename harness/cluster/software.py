"""A network's software on a real cluster: the `cluster:` section of a file under fixtures/networks/, and what it makes.

Two sorts. Some networks come as manifests from their vendor: pinned, patched so that several stand side by side,
applied, waited for. Others (bridge, ptp, macvlan) are nothing but a configuration on each node, whose binaries and
routes the harness brings. Nothing here touches a cluster, so all of it is tested without one.
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
from harness.download import Download
from harness.values import change_texts, merged
from harness.yamlfile import Mistake, YamlFile

Object = dict[str, Any]

_BORROWED = re.compile(r"\{\{ *image of ([a-z-]+) *\}\}")


class Manifest(Section):
    """A vendor's manifest, as its release has it."""

    urls: tuple[str, ...] = Field(description="Where it can be had, best first; all have the same content.")
    sha256: str = Field(pattern="^[0-9a-f]{64}$")

    def objects(self) -> list[Object]:
        """Its objects.

        Raises:
            NotHad: it cannot be downloaded.
        """
        text = Download(urls=self.urls, checksum=f"sha256:{self.sha256}").get().read_text()
        documents = [document for document in yaml.safe_load_all(text) if document]
        return [item for thing in documents for item in (thing["items"] if thing["kind"] == "List" else [thing])]


class Patch(Section):
    """A change to some of a manifest's objects: merged into them, or (`drop`) leaving them out."""

    kind: str
    name: str = Field("", description="Empty: every object of that kind.")
    why: str = Field(description="What would go wrong without it.")
    drop: bool = False
    merge: dict[str, Any] = Field(
        {}, description="Merged as kubectl's strategic merge does: lists of things with a name by that name."
    )
    json_in: dict[str, dict[str, Any]] = Field(
        {}, alias="json-in", description="Of a ConfigMap: key of its data to what is merged into the JSON there."
    )

    def fits(self, thing: Object) -> bool:
        return bool(thing["kind"] == self.kind and self.name in ("", thing["metadata"]["name"]))

    def on(self, thing: Object) -> Object:
        """An object that it fits, changed."""
        thing = merge(thing, self.merge)
        data = {
            key: json.dumps(merge(json.loads(thing["data"][key]), change), indent=2)
            for key, change in self.json_in.items()
        }
        return merge(thing, {"data": data}) if data else thing


class Rollout(Section):
    """What must be rolled out before the network can be used."""

    kind: Literal["DaemonSet", "Deployment"]
    namespace: str
    name: str


class NodeBridge(Section):
    """A bridge that stands for all pods of the network, made on each node before any plugin needs it."""

    name: str
    address: str


class NodeConf(Section):
    """A configuration that the harness writes to each node; `{n}` in any string is the node's number, from 1."""

    content: dict[str, Any]
    bridge: NodeBridge | None = None
    routes: str = Field("", description="The node's own subnet of this network, which all other nodes get a route to.")


class Software(Section):
    """What a network is on a real cluster."""

    software: str = Field(description="What really runs, for reports.")
    conf: str = Field(description="The file that its configuration is in net.d: how its readiness is seen on a node.")
    subnets: tuple[str, ...]
    default_route: bool = Field(True, alias="default-route", description="Whether its plugin sets one by itself.")
    first_only: str = Field(
        "", alias="first-only", description="Why it works as a pod's first network only; empty: it works as any."
    )
    manifests: tuple[Manifest, ...] = ()
    patches: tuple[Patch, ...] = ()
    own_objects: tuple[Object, ...] = Field(
        (), alias="objects", description="Objects beside the manifests', as what the vendor takes for granted."
    )
    ready: tuple[Rollout, ...] = ()
    plugins: tuple[str, ...] = Field((), description="Binaries of containernetworking/plugins that it needs.")
    node_conf: NodeConf | None = Field(None, alias="node-conf")
    conflicts: tuple[str, ...] = Field((), description="Networks that it cannot share a node with.")
    conflict_reason: str = Field("", alias="conflict-reason")
    on_request: bool = Field(False, alias="on-request", description="Installed only when it is asked for by name.")

    def objects(self) -> list[Object]:
        """The patched objects of all its manifests, and its own.

        Raises:
            NotHad: a manifest cannot be downloaded.
            ValueError: a patch fits nothing, as after a change of version.
        """
        vendors = [thing for manifest in self.manifests for thing in manifest.objects()]
        return [*patched(vendors, self.patches), *self.own_objects]


def patched(objects: list[Object], patches: tuple[Patch, ...]) -> list[Object]:
    """Objects with patches on them; a patch that fits none is an error, for it was written for another version."""
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
    """An object with a change merged into it, lists of things with a name by that name. null removes a key;
    `$patch: delete` removes an item from a list.
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
        else:  # an environment variable has a value or a source, not the old one beside the new
            items[at] = change if {"value", "valueFrom"} & change.keys() else merge(items[at], change)
    return items


def _named(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) and "name" in item for item in value)


def images(objects: list[Object]) -> tuple[str, ...]:
    """Every image that objects would have run, each once; those that the nodes have already are left out."""
    return tuple(image for image in dict.fromkeys(_images(objects)) if not _BORROWED.fullmatch(image))


def borrowed(objects: list[Object]) -> frozenset[str]:
    """The parts of the control plane whose own images objects take: `{{ image of etcd }}`."""
    return frozenset(found[1] for image in _images(objects) if (found := _BORROWED.fullmatch(image)))


def with_borrowed(objects: list[Object], lent: Mapping[str, str]) -> list[Object]:
    """Objects with the control plane's images in place.

    Args:
        lent: part of the control plane to its image.
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
    """A node's own version of a configuration: `{n}` replaced in every string."""
    return change_texts(value, lambda text: text.replace("{n}", str(number)))


def mistakes(source: YamlFile, section: Any) -> list[Mistake]:
    """What is wrong with the `cluster:` section of a file, each at its place."""
    try:
        Software.model_validate(section)
    except ValidationError as error:
        return catalog.mistakes(source, error, Software, ("cluster",))
    return []


def known(networks: Mapping[str, Network]) -> dict[str, Software]:
    """The networks that can be had on a real cluster.

    Raises:
        ProfileError: a `cluster:` section is not valid.
    """
    found = {}
    for name, network in networks.items():
        if network.cluster is not None:
            try:
                found[name] = Software.model_validate(network.cluster)
            except ValidationError as error:
                raise ProfileError(f"network {name}: cluster: {error}") from error
    return found
