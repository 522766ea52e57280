"""Calls CHECK, GC and STATUS on a real node, as its runtime would: a kubelet never asks for them.

Environment and configuration are like libcni's (see `harness/libcni.py`), from the files of the node's runtime under
/var/lib/cni/results. The plugin is started on the node, so the real shim and agent handle the call.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from harness import libcni
from harness.cluster.nodes import Nodes
from harness.libcni import BINARIES, Attachment, Json, Kept

_FIRST_CONF = 'cd "$1" && cat "$(ls | grep -E "\\.(conf|conflist|json)$" | head -n 1)"'
_ALL_KEPT = 'cd "$1" 2>/dev/null && for file in $(ls -t); do cat "$file" 2>/dev/null && echo; done; true'
#: Reads $1 bytes of its standard input: input through the API server has no end of file.
_CALL = 'size=$1; shift; head -c "$size" | env -i PATH="$PATH" HOME=/root "$@"; printf "\\n%s" "$?"'
_TAMPER = {
    "addresses": 'ip addr flush dev "$1"',
    # It is no error that a table without routes cannot be flushed.
    "routes": 'ip link show "$1" >/dev/null; tables=$(ip rule | sed -n "s/.*lookup \\([^ ]*\\).*/\\1/p" | sort -u); '
    'for table in $tables; do [ "$table" = local ] || ip route flush table "$table" dev "$1" 2>/dev/null || true; done',
    "rules": 'for own in $(ip -o addr show dev "$1" scope global | sed "s/.*inet6* \\([^/]*\\).*/\\1/"); do '
    'case $own in *:*) family=-6 ;; *) family=-4 ;; esac; ip $family rule del from "$own"; done',
    "interface": 'ip link del "$1"',
}


@dataclass(frozen=True, kw_only=True)
class Verbs:
    """Acts as the runtime of a cluster's nodes."""

    nodes: Nodes

    def check(self, node: str, namespace: str, pod: str) -> None:
        """CHECK of a pod, with the result of its ADD.

        Raises CniFailure: a plugin reports an error.
        Raises LookupError: the runtime has no result for such a pod.
        """
        kept = self._of_pod(node, namespace, pod)
        for plugin in kept.network["plugins"]:
            stdin = libcni.configuration(kept.network, plugin, kept.attachment, result=kept.result)
            self._call(node, "CHECK", plugin, stdin, kept.attachment)

    def status(self, node: str, change: Mapping[str, Any], env: Mapping[str, str]) -> None:
        """STATUS, with a change merged into genie.conf, and further variables, for this one call.

        Raises CniFailure: a plugin reports that an ADD could not work now.
        """
        network = self._network(node, change)
        for plugin in network["plugins"]:
            self._call(node, "STATUS", plugin, libcni.configuration(network, plugin), env=env)

    def collect_garbage(self, node: str) -> None:
        """GC, with all attachments that the runtime has a result of.

        Raises CniFailure: a plugin failed.
        """
        valid = [kept.attachment for kept in self._all(node)]
        network = self._network(node, {})
        for plugin in network["plugins"]:
            self._call(node, "GC", plugin, libcni.configuration(network, plugin, valid=valid))

    def lose_sandbox(self, node: str, namespace: str, pod: str) -> None:
        """ADD for one more sandbox of a pod; its namespace then disappears without a DEL. The runtime does not know it.

        Raises CniFailure: a plugin failed.
        """
        kept, name = self._of_pod(node, namespace, pod), f"genie-lost-{secrets.token_hex(4)}"
        lost = replace(kept.attachment, sandbox=secrets.token_hex(32), netns=f"/run/netns/{name}")
        self.nodes.run(node, "ip", "netns", "add", name)
        try:
            [plugin] = kept.network["plugins"]
            self._call(node, "ADD", plugin, libcni.configuration(kept.network, plugin, lost), lost)
        finally:
            self.nodes.run(node, "ip", "netns", "del", name)

    def tamper(self, node: str, namespace: str, pod: str, interface: str, remove: str) -> None:
        """Remove the addresses or routes of a pod's interface, or the interface itself.

        Raises CommandFailed: there is no such interface.
        """
        netns = self._of_pod(node, namespace, pod).attachment.netns
        self.nodes.run(node, "nsenter", f"--net={netns}", "sh", "-ec", _TAMPER[remove], "sh", interface)

    def _call(
        self,
        node: str,
        verb: str,
        plugin: Json,
        stdin: Json,
        attachment: Attachment | None = None,
        *,
        env: Mapping[str, str] | None = None,
    ) -> None:
        env = {**libcni.environment(verb, attachment), **(env or {})}
        words = [f"{name}={value}" for name, value in env.items()]
        sent = json.dumps(stdin).encode()
        argv = ("sh", "-c", _CALL, "sh", str(len(sent)), *words, f"{BINARIES}/{plugin['type']}")
        stdout, _, status = self.nodes.run(node, *argv, stdin=sent).rpartition("\n")
        if status != "0":
            raise libcni.failure(str(plugin["type"]), verb, int(status), stdout)

    def _network(self, node: str, change: Mapping[str, Any]) -> Json:
        """The network of all pods on the node, as a runtime of CNI 1.1 reads it."""
        conf = json.loads(self.nodes.run(node, "sh", "-c", _FIRST_CONF, "sh", libcni.CONF_DIR))
        return libcni.as_list(libcni.with_settings(conf, "genie", {"cniVersion": "1.1.0", **change}))

    def _of_pod(self, node: str, namespace: str, pod: str) -> Kept:
        for kept in self._all(node):
            if (kept.attachment.namespace, kept.attachment.pod) == (namespace, pod):
                return kept
        raise LookupError(f"the runtime of {node} has no result of an ADD for {namespace}/{pod}")

    def _all(self, node: str) -> Iterable[Kept]:
        """The stored results, newest first."""
        for line in self.nodes.run(node, "sh", "-c", _ALL_KEPT, "sh", libcni.CACHE).splitlines():
            with suppress(ValueError, KeyError, TypeError):
                yield Kept.of(line)
