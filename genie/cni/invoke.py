"""The verbs for one network: its plugins called in a chain, as in the specification's section 3.

The input is a `NetworkConfig` and an `Attachment`. For each plugin one request is derived (configuration on standard
input, parameters in the environment) and passed to an `Executor`, the only way to run anything. The output is a
`Result`, nothing, or one `CniError` with the network, the plugin and the plugin's own error.

The verbs are coroutines because the agent's executor waits for a shim in another process. They await only the executor,
so with one that never suspends (`SubprocessExecutor`) `run_sync` drives them without an event loop.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from genie.cni import config as configs
from genie.cni import result as results
from genie.cni import version as versions
from genie.cni.config import NetworkConfig
from genie.cni.errors import CniError, Code, joined
from genie.cni.execute import Executor, Outcome, PluginCall, compute, run
from genie.cni.result import Result

RESULT_MAX = 131072
"""The limit for a plugin's result, in bytes: twice the size of the longest lists that result.py accepts."""
OVERRIDE = "CNI_NETNS_OVERRIDE"
"""Not in the specification: with it, containernetworking's plugins accept the namespace that they run in."""
CALLED = "GENIE_CALLED"
"""Set for plugins, and so for what they call themselves: genie as their ipam plugin or delegate would wait for itself.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Attachment:
    """Section 3, "Attachment Parameters".

    GC, STATUS and VERSION have no container, and need only path, env and timeout. netns: a path; "" for a DEL after the
    namespace is gone. args: CNI_ARGS, unchanged. path: the directories of CNI_PATH. runtime_config: the capability
    arguments. env: the rest of the environment to pass on, such as PATH; of its CNI_* variables only CNI_NETNS_OVERRIDE
    is passed on. timeout: seconds for each plugin; None: no limit.
    """

    container_id: str = ""
    netns: str = ""
    ifname: str = ""
    args: str = ""
    path: tuple[str, ...]
    runtime_config: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    timeout: float | None = None


class PluginError(CniError):
    """A plugin of a network failed at a verb.

    plugin: its object in the configuration. own: the error without network, plugin and verb, as the plugin printed it,
    or made from its exit status. cut_off: it was killed before it could answer, so its state is unknown. missing: it
    does not exist, or could not be started.
    """

    missing = False

    def __init__(self, where: str, own: CniError, plugin: Mapping[str, Any], ifname: str, *, cut_off: bool) -> None:
        super().__init__(own.code, f"{where}: {own.msg}", own.details)
        self.own, self.plugin, self.ifname, self.cut_off = own, plugin, ifname, cut_off


# The verbs


class Progress:
    """The progress of an ADD. called: the number of plugins called. result: from the last one that succeeded."""

    def __init__(self) -> None:  # not a dataclass: making one takes 0.3 ms of each ADD in direct mode
        self.called = 0
        self.result: Result | None = None


async def add(
    network: NetworkConfig, attachment: Attachment, executor: Executor, progress: Progress | None = None
) -> Result:
    """Section 3, "Adding an attachment": call each plugin in order, with the result of the one before.

    progress: kept up to date, so that the caller can undo the ADD when this raises: "A delete must still be executed
    even if the add fails".

    Raises PluginError of the first plugin that fails.
    """
    _validate(network, attachment)
    progress = progress or Progress()
    for plugin in network.plugins:
        progress.called += 1
        progress.result = await _Step(network, plugin, attachment, executor).add(progress.result)
    assert progress.result is not None, "a configuration has at least one plugin"
    return progress.result


async def delete(
    network: NetworkConfig, attachment: Attachment, executor: Executor, prev_result: Result | None = None
) -> None:
    """Section 3, "Deleting an attachment": call each plugin in reverse, with the ADD's final result if it is known.

    Stops at the first plugin that fails and raises its CniError; another call is always allowed.
    """
    _validate(network, attachment)
    for plugin in reversed(network.plugins):
        await _Step(network, plugin, attachment, executor).call("DEL", prev_result)


async def check(network: NetworkConfig, attachment: Attachment, executor: Executor, prev_result: Result) -> None:
    """Section 3, "Checking an attachment": call each plugin in order, with the ADD's final result, until one fails.

    No plugin is called if `disableCheck` is set or the version has no CHECK (below 0.4.0); then CHECK passes.
    """
    if network.disable_check or not versions.has("CHECK", network.cni_version):
        return
    _validate(network, attachment)
    for plugin in network.plugins:
        await _Step(network, plugin, attachment, executor).call("CHECK", prev_result)


async def gc(
    network: NetworkConfig, attachment: Attachment, executor: Executor, valid: Sequence[Mapping[str, str]]
) -> None:
    """Section 3, "Garbage-collecting a network": call every plugin, then raise all errors as one.

    valid: the attachments of this network to keep, each {"containerID": ..., "ifname": ...}. No plugin is
    called if `disableGC` is set or the version has no GC (below 1.1.0). The code is the first error's.
    """
    if network.disable_gc or not versions.has("GC", network.cni_version):
        return
    errors = []
    for plugin in network.plugins:
        try:
            await _Step(network, plugin, attachment, executor, valid).call("GC")
        except CniError as error:
            errors.append(error)
    if errors:
        raise joined(errors)


async def status(network: NetworkConfig, attachment: Attachment, executor: Executor) -> None:
    """Section 2, STATUS: whether the network can serve an ADD. Raises the first CniError, of code 50 or 51.

    A network of a version without STATUS (below 1.1.0) counts as ready; whether its plugins exist is not
    checked.
    """
    if not versions.has("STATUS", network.cni_version):
        return
    for plugin in network.plugins:
        await _Step(network, plugin, attachment, executor).call("STATUS")


async def supported_versions(
    kind: str, attachment: Attachment, executor: Executor, network: str = ""
) -> tuple[str, ...]:
    """Section 2, VERSION: the versions that a plugin speaks. A plugin older than that command speaks 0.1.0.

    Raises CniError if the plugin does not exist, or its answer makes no sense.
    """
    # Plugins built with a library older than 0.2.0 require parameters that VERSION does not need.
    dummy = replace(attachment, container_id="dummy", netns="dummy", ifname="dummy", args="")
    stdin = json.dumps({"cniVersion": versions.LATEST}).encode()
    outcome = await run(executor, _plugin_call(kind, "VERSION", dummy, stdin, network))
    if outcome.status == 0 and not outcome.error and (spoken := versions.of_version_reply(outcome.stdout)):
        return spoken
    error = _failure(outcome)
    if "unknown CNI_COMMAND" in error.msg:  # by the message, as libcni does: such plugins have no error codes
        return ("0.1.0",)
    raise CniError(error.code, f"{kind}: VERSION: {error.msg}", error.details)


def find(kind: str, path: Sequence[str]) -> str:
    """The executable of a plugin's type, in the first directory of `path` that has it.

    Raises CniError (INVALID_CONFIG) with the directories searched, and files found there that are not executable.
    """
    if not configs.is_type(kind):
        raise CniError(Code.INVALID_CONFIG, f"plugin: type: expected {configs.TYPE_IS}, found {kind!r:.60}")
    unusable = []
    for directory in filter(None, path):
        candidate = f"{directory}/{kind}"
        if os.path.isfile(candidate):
            if os.access(candidate, os.X_OK):
                return candidate
            unusable.append(f"{candidate} is not executable")
    looked_in = ", ".join(filter(None, path)) or "nowhere, since CNI_PATH is empty"
    raise CniError(Code.INVALID_CONFIG, f"no plugin {kind!r}: looked in {looked_in}", "; ".join(unusable))


# One plugin


def _plugin_call(kind: str, command: str, attachment: Attachment, stdin: bytes, network: str) -> PluginCall:
    return PluginCall(
        binary=find(kind, attachment.path),
        env=_environment(command, attachment),
        stdin=stdin,
        timeout=attachment.timeout,
        network=network,
    )


class _Step(NamedTuple):
    """One plugin of the chain, and the verb to call it with."""

    network: NetworkConfig
    plugin: Mapping[str, Any]
    attachment: Attachment
    executor: Executor
    valid: Sequence[Mapping[str, str]] = ()

    async def add(self, prev_result: Result | None) -> Result:
        outcome, version = await self.call("ADD", prev_result)
        try:
            return await compute(
                self.executor, lambda: results.parse(_decoded(outcome.stdout), version), size=4 * len(outcome.stdout)
            )
        except CniError as error:
            raise self._failed("ADD", error) from error

    async def call(self, command: str, prev_result: Result | None = None) -> tuple[Outcome, str]:
        """Call in the network's version. If the plugin refuses it, call again in the highest that both speak.

        Returns the outcome and the version of the request. Raises PluginError.
        """
        version, cut_off, missing = self.network.cni_version, False, True
        try:
            outcome = await self._run(command, version, prev_result)
            missing = bool(outcome.errno)
            if _failed(outcome) and _may_be_older(command, _failure(outcome)):
                common = await self._negotiate(_failure(outcome))
                if not versions.has(command, common):
                    return Outcome(status=0), common
                version, outcome = common, await self._run(command, common, prev_result)
            if _failed(outcome):
                cut_off = bool(outcome.error) and not outcome.errno
                raise _failure(outcome)
        except CniError as error:
            failed = self._failed(command, error, cut_off)
            failed.missing = missing
            raise failed from error
        return outcome, version

    async def _run(self, command: str, version: str, prev_result: Result | None) -> Outcome:
        stdin = self._request(command, version, prev_result)
        call = _plugin_call(self.plugin["type"], command, self.attachment, stdin, self.network.source)
        return await run(self.executor, call)

    async def _negotiate(self, refusal: CniError) -> str:
        """The highest common version other than the refused one; without one, raises the refusal."""
        spoken = await supported_versions(self.plugin["type"], self.attachment, self.executor, self.network.source)
        if refusal.code != Code.INCOMPATIBLE_VERSION and self.network.cni_version in spoken:
            raise refusal
        common = versions.highest(version for version in spoken if version != self.network.cni_version)
        if common is None:
            raise CniError(refusal.code, refusal.msg, refusal.details or f"it speaks {', '.join(spoken)}")
        return common

    def _request(self, command: str, version: str, prev_result: Result | None) -> bytes:
        """Section 3, "Deriving request configuration from plugin configuration"."""
        request = {key: value for key, value in self.plugin.items() if not _is_reserved(key)}
        request |= {"cniVersion": version, "name": self.network.name}
        if command == "GC":
            request["cni.dev/valid-attachments"] = [dict(one) for one in self.valid]
            # Plugins built with the first libraries of 1.1.0 read this field (containernetworking/cni #1101).
            request["cni.dev/attachments"] = request["cni.dev/valid-attachments"]
        elif command != "STATUS":
            runtime_config = _runtime_config(self.plugin, self.attachment.runtime_config)
            if runtime_config:
                request["runtimeConfig"] = runtime_config
            # prevResult came to DEL together with CHECK, in 0.4.0
            if prev_result is not None and (command == "ADD" or versions.has("CHECK", version)):
                request["prevResult"] = results.to_json(prev_result, version)
        return json.dumps(request).encode()

    def _failed(self, command: str, error: CniError, cut_off: bool = False) -> PluginError:
        where = f"network {self.network.name!r}: plugin {self.plugin['type']!r}: {command}"
        return PluginError(where, error, self.plugin, self.attachment.ifname, cut_off=cut_off)


def _may_be_older(command: str, refusal: CniError) -> bool:
    """Whether a plugin refuses the version, or a verb of 1.1.0: old plugins then ask for an ADD's parameters."""
    missing = (Code.UNKNOWN_CONTAINER, Code.INVALID_ENVIRONMENT, 100)  # 100: from plugins older than the codes for this
    return refusal.code == Code.INCOMPATIBLE_VERSION or (command in ("GC", "STATUS") and refusal.code in missing)


def _is_reserved(key: str) -> bool:
    """The keys that the runtime writes itself (section 1, "Reserved keys") or removes (section 3, `capabilities`).

    `args` is reserved too, but by convention it has the network's own arguments, so it is passed on.
    """
    return key in ("capabilities", "runtimeConfig", "prevResult") or key.startswith("cni.dev/")


def _runtime_config(plugin: Mapping[str, Any], offered: Mapping[str, Any]) -> dict[str, Any]:
    """Section 3, "Deriving runtimeConfig": the capability arguments that the plugin declares."""
    declared = plugin.get("capabilities") or {}
    return {name: offered[name] for name, on in declared.items() if on and name in offered}


def _environment(command: str, attachment: Attachment) -> dict[str, str]:
    """Section 2, "Parameters": an attachment's only for its verbs, and none from our own environment."""
    env = {key: value for key, value in attachment.env.items() if not key.startswith("CNI_") or key == OVERRIDE}
    env |= {CALLED: "1", "CNI_COMMAND": command, "CNI_PATH": os.pathsep.join(attachment.path)}
    if command not in ("GC", "STATUS"):
        env["CNI_CONTAINERID"] = attachment.container_id
        env["CNI_NETNS"] = attachment.netns
        env["CNI_IFNAME"] = attachment.ifname
        env["CNI_ARGS"] = attachment.args
    return env


def _validate(network: NetworkConfig, attachment: Attachment) -> None:
    configs.validate_network_name(network.name)
    configs.validate_container_id(attachment.container_id)
    configs.validate_ifname(attachment.ifname)


# Reading a plugin's answer


_OF_RESULT = {"interfaces", "ips", "ip4", "ip6"}


def _failed(outcome: Outcome) -> bool:
    """Section 2, "Errors": any status except 0. A few plugins print an error and still exit with 0."""
    if outcome.status != 0 or outcome.error:
        return True
    if b'"code"' not in outcome.stdout:  # the usual case: decode it only once
        return False
    try:
        data = json.loads(outcome.stdout[:RESULT_MAX])
    except (ValueError, RecursionError):
        return False  # no result either
    return isinstance(data, dict) and "code" in data and not data.keys() & _OF_RESULT


def _failure(outcome: Outcome) -> CniError:
    """The plugin's own error object, otherwise one from its standard error and its exit status."""
    reported = CniError.parse(outcome.stdout[:RESULT_MAX])
    if reported is not None and not outcome.error:
        return reported
    ended = outcome.error or (f"killed by signal {-outcome.status}" if outcome.status < 0 else "")
    ended = ended or f"exit status {outcome.status}"
    heard = _last_lines(outcome.stderr) or _last_lines(outcome.stdout)
    code = Code.IO_FAILURE if outcome.error else Code.INTERNAL
    return CniError(code, f"{ended}, and no error reported" if not heard else f"{ended}: {heard}")


def _last_lines(output: bytes, lines: int = 5, characters: int = 600) -> str:
    """The end of an output as one line: the last lines of a log matter most."""
    text = output[-8192:].decode("utf-8", "replace")
    kept = [line.strip() for line in text.splitlines() if line.strip()][-lines:]
    return " / ".join(kept)[-characters:]


def _decoded(stdout: bytes) -> object:
    if len(stdout) > RESULT_MAX:
        raise CniError(Code.DECODING_FAILURE, f"its result has {len(stdout)} bytes, of at most {RESULT_MAX}")
    if not stdout.strip():
        raise CniError(Code.DECODING_FAILURE, "succeeded, but printed no result")
    try:
        data = json.loads(stdout)
    except (ValueError, RecursionError) as error:
        raise CniError(
            Code.DECODING_FAILURE,
            f"succeeded, but its result is not JSON: {_last_lines(stdout)!r}",
            str(error),
        ) from error
    results.check_length(data)
    return data
