"""The scene of a check: a machine, the plugin in one version of the specification, and containers.

Every action is also recorded as shell, so each finding has a script that reproduces it without this project.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shlex
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pyroute2 import IPRoute

from harness.conformance import machine, trace
from harness.conformance.call import SECONDS, Call, Json, Outcome, run
from harness.conformance.delegate import Delegate
from harness.conformance.findings import Fault, Finding
from harness.conformance.kernel import Kernel
from harness.conformance.machine import Sandbox, Snapshot
from harness.conformance.spec import PROTOCOL, Section, number
from harness.conformance.subject import Subject
from harness.embedded import linux
from harness.waiting import limit

T = TypeVar("T")
_PRELUDE = """\
#!/bin/sh
# As root; afterwards nothing of it is left: namespaces of its own for network, mounts and processes.
[ -n "$INSIDE" ] || INSIDE=1 exec unshare --net --mount --pid --fork --mount-proc sh "$0"
mount -t tmpfs run /run; mkdir -p /run/netns /var/lib/cni; mount -t tmpfs cni /var/lib/cni; ip link set lo up
"""
_LONG = 120.0  # seconds: two thirds of the limit of a check
#: Directories of more than one program: a file there is another's, unless it has the same name.
_COMMON = set(map(Path, ("/run", "/run/cni", "/tmp", "/etc", "/var/lib", "/var/lib/cni", "/var/cache", "/var/tmp")))


class Blocked(Exception):
    """The check cannot run, because a call that it needs fails; another check reports that."""


class Skipped(Exception):
    """The check does not apply to this plugin; the message has the reason."""


class Broken(Exception):
    """The environment, or another plugin, made the check impossible."""


@dataclass(kw_only=True)
class Attachment:
    """One container's interface on the network, as the runtime sees it."""

    sandbox: Sandbox | None
    container: str
    ifname: str = "eth0"
    netns: str = ""
    before: Json | None = None  # the result of the plugins before the tested one
    result: Json | None = None  # the tested plugin's
    args: str = ""
    runtime: Json = field(default_factory=dict)  # runtimeConfig
    around: Snapshot | None = None  # if the plugin is not the first: the machine before its ADD
    undone: Snapshot | None = None  # the machine after its DEL, before the DEL of earlier plugins

    @property
    def variables(self) -> dict[str, str]:
        """The parameters of a call."""
        env = {"CNI_CONTAINERID": self.container, "CNI_NETNS": self.netns, "CNI_IFNAME": self.ifname}
        return {**env, **({"CNI_ARGS": self.args} if self.args else {})}


IpamCall = tuple[str, Attachment | None, Json]  # verb, attachment, standard input


class Scene:
    """One check's run with one version."""

    def __init__(self, subject: Subject, version: str, warned: Set[str] = frozenset()) -> None:
        self.subject, self.version, self.section = subject, version, PROTOCOL
        self.warned = warned  # earlier checks with warnings
        self.findings: list[Finding] = []
        self.should = False  # whether the check tests only a recommendation of the specification
        self.seconds: dict[str, list[float]] = {}
        self.notes: list[str] = []
        self._script: list[str] = []
        self._patience = SECONDS  # for a call
        self._numbers, self._results = itertools.count(1), list[tuple[Json, str]]()
        self._containers = self._delegates = 0
        self._until = time.monotonic() + _LONG
        self.cache: dict[str, Any] = {}  # shared by the checks of a batch
        #: Merged over the configuration of every call.
        self.changes: Json = {}
        self.path = subject.path
        self.watched = False  # whether to look who holds a call's output open
        self.surroundings: Mapping[str, str] = {}  # other variables, with another directory and umask; empty: as usual
        for name in [machine.UPLINK, *subject.masters]:
            self.write(
                f"ip link add {name} type veth peer far-{name}; ip link set {name} up; ip link set far-{name} up"
            )
        self.write(f"ip addr add 192.0.2.10/24 dev {machine.UPLINK}; ip route add default via 192.0.2.1")
        for path, text in subject.files.items():
            self.write(f"mkdir -p {Path(path).parent}; printf %s {shlex.quote(text)} > {path}")
        for daemon in subject.daemons:
            self.write(daemon.shell())

    @property
    def is_late(self) -> bool:
        """Whether a check that repeats something must come to an end, because its time is nearly over."""
        return time.monotonic() > self._until

    def has(self, version: str) -> bool:
        """Whether the version of the specification is this one or a later one."""
        return number(self.version) >= number(version)

    # --- actions of a runtime

    def container(self, ifname: str = "", **more: Any) -> Attachment:
        """A new container's attachment, not yet made."""
        self._containers += 1
        name = f"c{self._containers}"
        sandbox = Sandbox(name)
        self.write(f"ip netns add {name}; ip -n {name} link set lo up")
        identity = hashlib.sha256(name.encode()).hexdigest()
        ifname = ifname or self.subject.ifname
        return Attachment(sandbox=sandbox, container=identity, ifname=ifname, netns=str(sandbox.path), **more)

    def conf(self, attachment: Attachment | None = None, previous: Json | None = None) -> Json:
        """The standard input of the tested plugin."""
        return self._conf(self.subject.conf, attachment, previous)

    def _conf(self, part: Json, attachment: Attachment | None, previous: Json | None) -> Json:
        conf = {key: value for key, value in part.items() if key != "capabilities"}
        conf |= {"cniVersion": self.version, "name": self.subject.name}
        if part is self.subject.conf:
            conf |= self.changes
        declared = part.get("capabilities") or {}
        wanted = attachment.runtime if attachment else {}
        if runtime := {name: value for name, value in wanted.items() if declared.get(name)}:
            conf["runtimeConfig"] = runtime
        if previous is not None:
            conf["prevResult"] = previous
        return conf

    def call(
        self,
        verb: str,
        attachment: Attachment | None = None,
        conf: Json | bytes | None = None,
        *,
        without: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> Outcome:
        """Call the tested plugin.

        conf: its input; by default its configuration.
        without: variables to leave out.
        env: additional variables, or replacements for the attachment's.
        """
        if conf is None:
            conf = self.conf(attachment)
        outcome = self._run(str(self.subject.binary), verb, attachment, conf, without=without, env=env)
        self.seconds.setdefault(verb, []).append(outcome.seconds)
        return outcome

    def _run(
        self,
        binary: str,
        verb: str,
        attachment: Attachment | None,
        conf: Json | bytes,
        *,
        without: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> Outcome:
        variables = {"CNI_COMMAND": verb, "CNI_PATH": self.path, **(attachment.variables if attachment else {})}
        variables = {key: value for key, value in {**variables, **(env or {})}.items() if key not in without}
        stdin = conf if isinstance(conf, bytes) else json.dumps(conf).encode()
        call = Call(
            binary=binary, env={**self.surroundings, **variables}, stdin=stdin, elsewhere=bool(self.surroundings)
        )
        save = f"/run/result{next(self._numbers)}" if verb == "ADD" else ""
        self.write(call.shell(save, self._results))
        outcome = run(call, self._patience, watched=self.watched)
        if save and outcome.ok and outcome.object:
            self._results.append((outcome.object, save))
        return outcome

    def add(self, attachment: Attachment) -> Outcome:
        """ADD, after the ADD of earlier plugins; the result is stored if it is an object."""
        self.prepare(attachment)
        outcome = self.call("ADD", attachment, self.conf(attachment, attachment.before))
        attachment.result = outcome.object if outcome.ok and outcome.object else None
        return outcome

    def prepare(self, attachment: Attachment) -> None:
        """ADD of the plugins before the tested one, only once."""
        if attachment.before is not None:
            return
        for part in self.subject.network["plugins"][: self.subject.position]:
            conf = self._conf(part, attachment, attachment.before)
            outcome = self._run(str(self.subject.binaries[part["type"]]), "ADD", attachment, conf)
            if not outcome.ok:
                raise Broken(f"{part['type']}, before the tested plugin, failed: {outcome.message}")
            attachment.before = outcome.object
        if self.subject.position:
            attachment.around = self.snapshot()

    def added(self, attachment: Attachment) -> Attachment:
        """ADD that must succeed, so that the check can continue.

        Raises Blocked: it does not.
        """
        if not (outcome := self.add(attachment)).ok or attachment.result is None:
            raise Blocked(f"ADD failed: {outcome.message}")
        return attachment

    def added_to_another(self, attachment: Attachment) -> Attachment:
        """ADD to another network with the same configuration. Further calls are about that network, until `changes` is
        reset.

        Raises Skipped: the plugin cannot do this.
        """
        self.changes = {"name": "another-network"}
        if not (outcome := self.add(attachment)).ok:
            raise Skipped(f"ADD to another network with the same configuration fails: {outcome.message}")
        return attachment

    def delete(self, attachment: Attachment, **more: Any) -> Outcome:
        """DEL as a runtime calls it, with prevResult since 0.4.0; then DEL of the plugins before the tested one."""
        conf = self.conf(attachment, attachment.result if self.has("0.4.0") else None)
        outcome = self.call("DEL", attachment, conf, **more)
        if self.subject.position:
            attachment.undone = self.snapshot()
        self.finish(attachment)
        return outcome

    def interrupted(self, verb: str, attachment: Attachment, kill_at: int) -> trace.Traced:
        """A call that is killed after this number of system calls that change something; 0: it is not killed."""
        conf = self.conf(attachment, attachment.before)
        variables = {"CNI_COMMAND": verb, "CNI_PATH": self.path, **attachment.variables}
        call = Call(binary=str(self.subject.binary), env=variables, stdin=json.dumps(conf).encode())
        self.write(
            f"# killed after {kill_at} system calls that change something, counted over all its threads and children"
        )
        self.write(call.shell(known=self._results))
        return trace.run(call, kill_at)

    def other(self, binary: Path, part: Json, verb: str, attachment: Attachment, result: Json | None) -> Json:
        """Call another plugin; returns its result or its error object."""
        outcome = self._run(str(binary), verb, attachment, self._conf(part, attachment, result))
        if not outcome.ok:
            return {"code": outcome.code or 100, "msg": outcome.message}
        return outcome.object

    def finish(self, attachment: Attachment) -> None:
        """DEL of the plugins before the tested one."""
        for part in reversed(self.subject.network["plugins"][: self.subject.position]):
            conf = self._conf(part, attachment, attachment.result if self.has("0.4.0") else None)
            self._run(str(self.subject.binaries[part["type"]]), "DEL", attachment, conf)

    def deleted(self, attachment: Attachment) -> None:
        """DEL that must succeed, so that the check can continue.

        Raises Blocked: it does not.
        """
        if not (outcome := self.delete(attachment)).ok:
            raise Blocked(f"DEL failed: {outcome.message}")

    def verify(self, attachment: Attachment, result: Json | None = None) -> Outcome:
        """CHECK."""
        return self.call("CHECK", attachment, self.conf(attachment, result or attachment.result))

    def collect(self, valid: Sequence[Attachment]) -> Outcome:
        """GC."""
        return self.call("GC", None, self.valid(valid))

    def valid(self, attachments: Sequence[Attachment]) -> Json:
        """The input of GC, with these as the valid attachments."""
        entries = [{"containerID": each.container, "ifname": each.ifname} for each in attachments]
        return {**self.conf(), "cni.dev/valid-attachments": entries, "cni.dev/attachments": entries}

    def at_once(self, what: Callable[[T], Outcome], items: Sequence[T]) -> list[Outcome]:
        """Several calls at the same time."""
        self._patience = limit(SECONDS)  # they wait for this machine's processors, too
        try:
            with ThreadPoolExecutor(len(items)) as pool:
                return list(pool.map(what, items))
        finally:
            self._patience = SECONDS

    def delegate(self) -> Delegate:
        """Watch the ipam plugin from now on.

        Raises Skipped: the plugin has none.
        """
        if not (name := self.subject.ipam):
            raise Skipped("the plugin has no ipam plugin")
        self._delegates += 1
        directory = machine.PLACE / f"delegate{self._delegates}"
        self.path = os.pathsep.join([str(directory), self.subject.path])
        self.write(f"# from here on {name} is a script in {directory} which can answer by itself")
        return Delegate(directory, name, self.subject.binaries[name])

    # --- actions of an observer

    def left_by_ipam(
        self, left: Sequence[str], calls: Sequence[IpamCall], look: Callable[[], Sequence[str]]
    ) -> set[str]:
        """The leftovers that the ipam plugin is at fault for: they are in its store, and its own calls leave them, too.

        calls: of the ipam plugin, which should remove them. look: returns what is left.
        """
        stored = {what for what in left if self.is_stored_by_ipam(what)}
        if stored:
            for verb, attachment, conf in calls:
                self._ask_ipam(verb, attachment, conf)
            stored.intersection_update(look())
        return stored

    def is_stored_by_ipam(self, left: str) -> bool:
        """Whether a leftover is a file in the ipam plugin's store: one call of that plugin alone shows where it is."""
        if not self.subject.ipam or not left.startswith("the file "):
            return False
        if "store" not in self.cache:
            self.cache["store"] = self._store()
        path, store = Path(left.removeprefix("the file ")), self.cache["store"]
        return path in store or path.parent in {each.parent for each in store} - _COMMON

    def _store(self) -> set[Path]:
        """The files that the ipam plugin writes."""
        attachment, before = self.container(), self.snapshot().files
        self._ask_ipam("ADD", attachment, self.conf())
        after = self.snapshot().files
        self._ask_ipam("DEL", attachment, self.conf())
        return {Path(path) for path, content in after.items() if before.get(path) != content}

    def _ask_ipam(self, verb: str, attachment: Attachment | None, conf: Json) -> None:
        """Call the ipam plugin without the tested plugin, to see which of the two is at fault; not in the script."""
        written = len(self._script)
        self._run(str(self.subject.binaries[self.subject.ipam]), verb, attachment, conf)
        del self._script[written:]

    def inside(self, attachment: Attachment) -> Kernel:
        """The kernel's state of the container."""
        assert attachment.sandbox is not None
        return attachment.sandbox.look()

    def snapshot(self) -> Snapshot:
        """The state of the machine outside the containers."""
        return machine.snapshot()

    def about(self, attachment: Attachment) -> set[str]:
        """Files and firewall rules that mention the container, without those of earlier plugins."""
        now, word = self.snapshot(), attachment.container
        found = {path for path, content in now.files.items() if word in path or word.encode() in content}
        found = {path for path in found if not path.startswith(("/var/log/", "/tmp/"))}
        rules = {rule for rule in now.firewall if word in rule}
        if (earlier := attachment.around) is not None:
            return (found - earlier.files.keys()) | (rules - earlier.firewall)
        return found | rules

    def reboot(self, attachment: Attachment) -> None:
        """Remove a container's namespace."""
        if attachment.sandbox is not None:
            attachment.sandbox.close()
            self.write(f"ip netns del {attachment.sandbox.name}")
            attachment.sandbox = None

    def netlink(self, attachment: Attachment | None, line: str, do: Callable[[IPRoute], Any]) -> None:
        """Change something in a container (or, with None, on the host), and record it.

        line: the same for `ip`, without the namespace.
        """
        sandbox = attachment.sandbox if attachment else None
        self.write(f"ip -n {sandbox.name} {line}" if sandbox else f"ip {line}")

        def change() -> None:
            with IPRoute() as netlink:
                do(netlink)

        sandbox.inside(change) if sandbox else change()

    def shell(self, line: str) -> int:
        """Run a line of shell on the host, and record it if it succeeds; returns its exit status."""
        env = {"PATH": linux.search_path()}
        if not (status := subprocess.run(["sh", "-c", line], env=env, capture_output=True, check=False).returncode):
            self.write(line)
        return status

    def write(self, line: str) -> None:
        """Add an action to the script."""
        self._script.append(line)

    def expect(
        self,
        condition: object,
        headline: str,
        demand: str,
        outcome: Outcome | None = None,
        *,
        fault: Fault = Fault.PLUGIN,
        section: Section | None = None,
        look: str = "",
        should: bool | None = None,
    ) -> bool:
        """Report a finding unless the condition is true; returns the condition.

        look: a line of shell that shows the fault at the end of the reproducer.
        should: whether the specification only recommends this; by default, as the check has it.
        """
        if not condition:
            silent = outcome is not None and outcome.call.verb != "ADD"
            script = [_PRELUDE, *self._script, look or ('echo "exit status: $?"' if silent else "")]
            found = Finding(
                headline=headline, demand=demand, section=section or self.section, fault=fault, outcome=outcome,
                should=self.should if should is None else should,
                reproducer="\n".join(script) + "\n",
            )  # fmt: skip
            self.findings.append(found)
        return bool(condition)
