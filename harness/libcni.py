"""The messages of a container runtime to a plugin for each verb, and its stored results, as in containerd with libcni.

This module does not use `genie.cni`, so that genie's tests do not share genie's mistakes. It has these parts of libcni:
a conf is treated as a list of one plugin; every plugin gets the name and version; capability arguments go only to
plugins that declare the capability; the result is stored on disk for prevResult (0.4.0 and later); GC gets the list of
valid attachments. The caller starts plugins and chooses the place for results: the embedded node's runtime (see
`embedded/runtime.py`), or commands on a real node (see `cluster/runtime.py`).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.values import merged

Json = dict[str, Any]
BINARIES = "/opt/cni/bin"
CONF_DIR = "/etc/cni/net.d"
CACHE = "/var/lib/cni/results"
KNOWN = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")


class CniFailure(Exception):
    """A plugin's error, with libcni's wording."""

    def __init__(self, plugin: str, verb: str, code: int, message: str) -> None:
        super().__init__(f'plugin type="{plugin}" failed ({verb.lower()}): {message}')
        self.code, self.message = code, message


@dataclass(frozen=True, kw_only=True)
class Attachment:
    """The attachment that a plugin is called for."""

    namespace: str
    pod: str
    uid: str
    sandbox: str
    netns: str
    capabilities: Mapping[str, Any] = field(default_factory=dict)  # "portMappings": [...]
    ifname: str = "eth0"

    @property
    def args(self) -> list[tuple[str, str]]:
        """CNI_ARGS."""
        return [
            ("IgnoreUnknown", "1"),
            ("K8S_POD_NAMESPACE", self.namespace),
            ("K8S_POD_NAME", self.pod),
            ("K8S_POD_INFRA_CONTAINER_ID", self.sandbox),
            ("K8S_POD_UID", self.uid),
        ]


@dataclass(frozen=True, kw_only=True)
class Kept:
    """The stored result of an ADD: the attachment, the network at that time, and the result."""

    attachment: Attachment
    network: Json
    result: Json

    @property
    def name(self) -> str:
        """The file's."""
        return f"{self.network['name']}-{self.attachment.sandbox}-{self.attachment.ifname}"

    def text(self) -> str:
        """The file's content."""
        kept = {
            "kind": "cniCacheV1",
            "containerId": self.attachment.sandbox,
            "config": base64.b64encode(json.dumps(self.network).encode()).decode(),
            "ifName": self.attachment.ifname,
            "networkName": self.network["name"],
            "netns": self.attachment.netns,
            "cniArgs": self.attachment.args,
            "capabilityArgs": dict(self.attachment.capabilities),
            "result": self.result,
        }
        return json.dumps(kept)

    @classmethod
    def of(cls, text: str) -> Kept:
        """From a file's content.

        Raises ValueError, KeyError, TypeError: it is invalid or incomplete.
        """
        kept = json.loads(text)
        args = dict(kept.get("cniArgs") or [])
        attachment = Attachment(
            namespace=args.get("K8S_POD_NAMESPACE", ""),
            pod=args.get("K8S_POD_NAME", ""),
            uid=args.get("K8S_POD_UID", ""),
            sandbox=kept["containerId"],
            netns=kept.get("netns") or "",
            capabilities=kept.get("capabilityArgs") or {},
            ifname=kept["ifName"],
        )
        return cls(
            attachment=attachment,
            network=as_list(json.loads(base64.b64decode(kept["config"]))),
            result=kept["result"],
        )


def as_list(conf: Json) -> Json:
    """A configuration as a list of plugins, also if it has a single plugin; in the highest version that both it and
    libcni support.
    """
    if "plugins" not in conf:
        return {"name": conf["name"], "cniVersion": conf.get("cniVersion"), "plugins": [conf]}
    offered = [each for each in conf.get("cniVersions") or () if each in KNOWN]
    newest = max([*offered, conf.get("cniVersion") or "0.2.0"], key=_numbers)
    return {**{key: value for key, value in conf.items() if key != "cniVersions"}, "cniVersion": newest}


def with_settings(conf: Json, plugin: str, change: Mapping[str, Any]) -> Json:
    """A configuration with a change merged into a plugin's part; keys of the list go to the list."""
    if "plugins" not in conf:
        return merged(conf, change)
    whole = {key: value for key, value in change.items() if key in ("name", "cniVersion")}
    part = {key: value for key, value in change.items() if key not in whole}
    plugins = [merged(each, part) if each.get("type") == plugin else each for each in conf["plugins"]]
    return {
        **{key: value for key, value in conf.items() if not whole or key != "cniVersions"},
        **whole,
        "plugins": plugins,
    }


def version(network: Json) -> tuple[int, ...]:
    """A network's version of the specification."""
    return _numbers(network.get("cniVersion") or "0.2.0")


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def environment(verb: str, attachment: Attachment | None) -> dict[str, str]:
    """The parameters of a call; most are empty for GC and STATUS, which concern no container."""
    return {
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": attachment.sandbox if attachment else "",
        "CNI_NETNS": attachment.netns if attachment else "",
        "CNI_ARGS": ";".join(f"{name}={value}" for name, value in attachment.args) if attachment else "",
        "CNI_IFNAME": attachment.ifname if attachment else "",
        "CNI_PATH": BINARIES,
    }


def configuration(
    network: Json,
    plugin: Json,
    attachment: Attachment | None = None,
    *,
    result: Json | None = None,
    valid: Iterable[Attachment] | None = None,
) -> Json:
    """The standard input of a plugin of a network.

    result: prevResult.
    valid: all existing attachments, for GC.
    """
    stdin = {**plugin, "name": network["name"], "cniVersion": network.get("cniVersion") or "0.2.0"}
    declared = stdin.get("capabilities") or {}
    offered = attachment.capabilities if attachment else {}
    if arguments := {name: value for name, value in offered.items() if declared.get(name)}:
        stdin["runtimeConfig"] = arguments
    if result is not None:
        stdin["prevResult"] = result
    if valid is not None:
        entries = [{"containerID": each.sandbox, "ifname": each.ifname} for each in valid]
        stdin |= {"cni.dev/valid-attachments": entries, "cni.dev/attachments": entries}
    return stdin


def failure(plugin: str, verb: str, status: int, stdout: str, stderr: str = "") -> CniFailure:
    """The error that a plugin reported."""
    try:
        reported = json.loads(stdout)
        message = ": ".join(filter(None, (str(reported["msg"]), str(reported.get("details") or ""))))
        return CniFailure(plugin, verb, int(reported["code"]), message)
    except (ValueError, KeyError, TypeError):
        message = f"netplugin failed with no error message: status {status}: {(stderr or stdout).strip()[-500:]}"
        return CniFailure(plugin, verb, 100, message)
