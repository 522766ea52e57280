"""One call of the runtime: the request in environment and standard input, and the reply.

This is the CNI specification's section 2 for a called plugin. `genie.cni.invoke` has the other side, for the plugins
that genie calls.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from genie.cni import version
from genie.cni.config import validate_container_id, validate_ifname
from genie.cni.errors import CniError, Code
from genie.cni.invoke import CALLED, OVERRIDE
from genie.config import Conf

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
    """One call of the runtime. namespace: a descriptor of the namespace of CNI_NETNS, for a process where that path may
    not exist; -1 without one.
    """

    env: Mapping[str, str]
    stdin: bytes
    namespace: int = -1

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
    def entrance(self) -> str:
        """A path by which this process can enter the network namespace; "" if the runtime passed none."""
        return f"/proc/self/fd/{self.namespace}" if self.netns and self.namespace >= 0 else self.netns

    @property
    def ifname(self) -> str:
        return self.env.get("CNI_IFNAME", "")

    @property
    def path(self) -> tuple[str, ...]:
        return tuple(filter(None, self.env.get("CNI_PATH", "").split(":")))

    @property
    def args(self) -> Mapping[str, str]:
        return arguments(self.env.get("CNI_ARGS", ""))

    @property
    def pod_name(self) -> str:
        namespace, name = self.args.get("K8S_POD_NAMESPACE", ""), self.args.get("K8S_POD_NAME", "")
        return f"{namespace}/{name}" if namespace and name else ""

    @property
    def spoken(self) -> str:
        """The CNI version of the request, also used for error replies."""
        try:
            data = json.loads(self.stdin)
        except (ValueError, RecursionError):
            data = {}
        asked = data.get("cniVersion") if isinstance(data, dict) else None
        return asked if asked in version.SUPPORTED else version.LATEST

    def validate(self) -> None:
        """Check CNI_COMMAND and the variables it requires.

        Raises CniError: 4; the message names the variable. 7 if a plugin that genie called calls genie.
        """
        if self.env.get(CALLED):
            raise CniError(
                Code.INVALID_CONFIG, "genie is called by a plugin that it called itself: its ipam or delegate is genie"
            )
        if self.command not in REQUIRED:
            raise CniError(
                Code.INVALID_ENVIRONMENT,
                f"CNI_COMMAND: expected one of {', '.join(REQUIRED)}, found {self.command!r}",
            )
        missing = [key for key in REQUIRED[self.command] if not self.env.get(key)]
        if missing:
            raise CniError(Code.INVALID_ENVIRONMENT, f"{self.command} needs {', '.join(missing)} in the environment")
        if self.command in ("ADD", "DEL", "CHECK"):
            validate_container_id(self.container_id)
            validate_ifname(self.ifname)


@lru_cache(maxsize=8)  # each call asks several times
def arguments(text: str) -> Mapping[str, str]:
    """Parse CNI_ARGS, `K8S_POD_NAME=a;K8S_POD_NAMESPACE=b`; parts without "=" are skipped."""
    pairs = (item.partition("=") for item in text.split(";"))
    return {key.strip(): value for key, equals, value in pairs if equals}


def permit(request: Request, conf: Conf) -> None:
    """Check that genie.conf's version has the verb, and that the request can be served.

    Raises CniError: 1 and 8, as from containernetworking's plugins; 2 for an ADD behind another plugin.
    """
    of_pod = "CNI_NETNS" in REQUIRED[request.command] or request.command == "DEL"
    if of_pod and _is_own(request.entrance) and request.env.get(OVERRIDE, "").lower() not in ("1", "true"):
        # its routes and interfaces would be treated as a pod's
        raise CniError(Code.INVALID_NETNS, f"CNI_NETNS: {request.netns} is the namespace that genie itself runs in")
    if not version.has(request.command, conf.cni_version):
        raise CniError(
            Code.INCOMPATIBLE_VERSION,
            f"CNI {conf.cni_version} has no {request.command}, which came with {version.SINCE[request.command]}",
        )
    if request.command == "ADD" and conf.raw.get("prevResult") is not None:
        found = json.dumps(conf.raw["prevResult"])
        raise CniError(
            Code.UNSUPPORTED_FIELD,
            "prevResult: genie makes the pod's networks itself, so in a list of plugins it comes first; "
            f"found {found:.300}",
        )


def _is_own(netns: str) -> bool:
    try:
        return bool(netns) and os.path.samefile(netns, "/proc/self/ns/net")
    except (OSError, ValueError):  # reported where the value is used
        return False


@dataclass(frozen=True, kw_only=True)
class Reply:
    """genie's output and exit status. `story`: the fields for a log line, without secrets."""

    status: int
    stdout: bytes
    story: Mapping[str, Any] = field(default_factory=dict)
