"""Calls that must fail: with only an error object with the right code, and without changes."""

from __future__ import annotations

import json
from collections.abc import Iterable

from harness.conformance import leftovers
from harness.conformance.call import Json, Outcome
from harness.conformance.checks.base import check
from harness.conformance.checks.life import BATCH, refused
from harness.conformance.scene import Attachment, Scene
from harness.conformance.spec import ADD, CONFIGURATION, ERROR_RESULT, ERRORS, PARAMETERS

_OBJECT = ("error-object",)
_KNOWN = (1, 2, 3, 4, 5, 6, 7, 8, 11, 50, 51)  # the specification's; 8 is of the newer libcni


def expect_error(scene: Scene, outcome: Outcome, what: str, codes: Iterable[int] = (), word: str = "") -> None:
    """Check a refusal.

    what: the call, as in "ADD with …".
    codes: the error must have one of these, from version 1.0.0 on, which defines them.
    word: the message must contain it.
    """
    demand = "On failure a plugin exits with another status than 0 and prints an error object: cniVersion, code, msg."
    if not scene.expect(not outcome.ok, f"{what} succeeds", "The call must fail.", outcome):
        return
    if not scene.expect(
        not outcome.late and outcome.status > 0, f"{what}: {outcome.message}", demand, outcome, section=ERRORS
    ):
        return
    if "error-object" in scene.warned:
        return  # the form of its errors has a finding already
    found = outcome.object
    well = bool(found) and outcome.code is not None and isinstance(found.get("msg"), str) and found["msg"] != ""
    text = outcome.stdout[:120].decode(errors="replace").strip() or "nothing"
    no_object = f"{what} fails, and standard output has no error object: {text}"
    if not scene.expect(well, no_object, demand, outcome, section=ERROR_RESULT, should=True):
        return
    code = outcome.code or 0
    undefined = f"{what} fails with code {code}: {found.get('msg')}"
    free = "Codes below 100 are the specification's, and it does not define this one. A plugin's own begin at 100."
    is_defined = code >= 100 or code in _KNOWN or (code > 0 and not scene.has("1.0.0"))
    if not scene.expect(is_defined, undefined, free, outcome, section=ERROR_RESULT, should=True):
        return
    wanted = tuple(codes) if scene.has("1.0.0") else ()
    scene.expect(
        not wanted or outcome.code in wanted,
        f"{what} fails with code {outcome.code}, expected {' or '.join(map(str, wanted))}",
        "Codes below 100 are the specification's, and each well-known error has its own.",
        outcome,
        section=ERROR_RESULT,
        should=True,
    )
    if word and outcome.code == 4:
        text = f"{found.get('msg')} {found.get('details') or ''}"
        scene.expect(
            word in text,
            f"{what}: the message does not name {word}: {text.strip()}",
            "The message of code 4 names the invalid variables.",
            outcome,
            section=ERROR_RESULT,
            should=True,
        )


class Refused:
    """The state of the machine and a container before a call that must fail; later compared with the state after it."""

    def __init__(self, scene: Scene, attachment: Attachment, *, taken: bool = False) -> None:
        """With `taken`, the container's interface belongs to another plugin, and no DEL may follow."""
        self.scene, self.attachment, self.taken = scene, attachment, taken
        self.before, self.inside = scene.snapshot(), scene.inside(attachment)

    def expect_nothing(self, outcome: Outcome, what: str) -> None:
        """Report leftovers of a failed call, except for objects that all containers share."""
        after, inside = self.scene.snapshot(), self.scene.inside(self.attachment)
        demand = "A call that fails changes nothing; what is reserved for it is released by the DEL that follows."
        known = {link.name for link in self.inside.links}
        found = [f"the interface {link.name} in the container" for link in inside.links if link.name not in known]
        found += leftovers.interfaces(self.before, after, self.scene.subject.shared)
        found += leftovers.processes(self.before, after)
        if self.attachment.sandbox:
            self.attachment.netns = str(self.attachment.sandbox.path)
        if not self.taken:
            self.scene.delete(self.attachment)
        files = self.scene.snapshot().files if not self.taken else {}
        word = self.attachment.container
        found += [f"the file {path}" for path in files if word in path or word.encode() in files[path]]
        for left in found:
            # Recommended: the section has DEL follow a failed ADD, and does not say what may be there until then.
            self.scene.expect(False, f"{left} is left after {what} failed", demand, outcome, section=ADD, should=True)


@check(
    "error-object",
    "An ADD that fails exits with another status than 0 and prints an error object.",
    ERRORS,
    each=True,
    after=("add-succeeds",),
    batch=BATCH,
)
def error_object(scene: Scene) -> None:
    outcome = refused(scene)
    if scene.subject.position and outcome.ok:
        return  # a plugin that adjusts other objects may need no namespace
    what = "without CNI_CONTAINERID" if scene.subject.assigns else "with a namespace that does not exist"
    expect_error(scene, outcome, f"ADD {what}")


@check(
    "error-version",
    "An error object has the cniVersion of the configuration.",
    ERROR_RESULT,
    each=True,
    after=_OBJECT,
    batch=BATCH,
    should=True,
)
def error_version(scene: Scene) -> None:
    outcome = refused(scene)
    found = outcome.object.get("cniVersion")
    if not outcome.ok:
        scene.expect(
            found == scene.version,
            f"given {scene.version}, the error has cniVersion {found!r}",
            "An error has the version of the protocol that is in use.",
            outcome,
        )


@check(
    "add-netns-missing",
    "ADD with a namespace that does not exist leaves nothing.",
    ADD,
    first=True,
    after=_OBJECT,
    batch="errors",
)
def netns_missing(scene: Scene) -> None:
    attachment = scene.container()
    refused = Refused(scene, attachment)
    attachment.netns = "/run/netns/missing"
    outcome = scene.call("ADD", attachment)
    refused.expect_nothing(outcome, "ADD with a namespace that does not exist")


@check(
    "add-netns-host",
    "ADD refuses the host's namespace, which has an eth0, and leaves it as it is.",
    ADD,
    first=True,
    after=_OBJECT,
)
def netns_host(scene: Scene) -> None:
    attachment = scene.container()
    refused = Refused(scene, attachment)
    attachment.netns = "/proc/1/ns/net"  # the namespace of the harness, which acts as the runtime
    outcome = scene.call("ADD", attachment)
    expect_error(scene, outcome, "ADD with the host's namespace, which has an eth0,")
    now = scene.snapshot().kernel
    for link in refused.before.kernel.links:
        there = now.link(link.name)
        same = there is not None and (there.index, there.up) == (link.index, link.up)
        same = same and set(refused.before.kernel.of(link)) <= set(now.of(link))
        scene.expect(
            same,
            f"ADD with the host's namespace changed the host's {link.name}",
            "An interface that exists already is not to be touched.",
            outcome,
        )
    if not outcome.ok:
        refused.expect_nothing(outcome, "ADD with the host's namespace")


@check(
    "add-netns-own",
    "ADD refuses the host's namespace also if the name of the interface is free there.",
    ADD,
    first=True,
    after=("add-netns-host",),
    should=True,
)
def netns_own(scene: Scene) -> None:
    attachment = scene.container(ifname="free0")
    attachment.netns = "/proc/1/ns/net"
    outcome = scene.call("ADD", attachment)
    demand = "A container is isolated from the host. libcni's own plugins compare the two namespaces, and refuse."
    headline = "ADD succeeds with the host's namespace as the container's, and makes free0 on the host"
    if scene.expect(not outcome.ok, headline, demand, outcome):
        expect_error(scene, outcome, "ADD with the host's namespace")


@check(
    "add-ifname-taken",
    "ADD with the name of an interface that exists returns an error and leaves that as it is.",
    ADD,
    first=True,
    after=_OBJECT,
    batch="errors",
)
def ifname_taken(scene: Scene) -> None:
    attachment = scene.container()
    scene.netlink(
        attachment,
        "link add eth0 type veth peer other",
        lambda netlink: netlink.link("add", ifname="eth0", kind="veth", peer={"ifname": "other"}),
    )
    refused = Refused(scene, attachment, taken=True)
    outcome = scene.call("ADD", attachment)
    expect_error(scene, outcome, "ADD with a CNI_IFNAME that exists")
    before, now = refused.inside.link("eth0"), scene.inside(attachment).link("eth0")
    same = before is not None and now is not None and before.index == now.index
    scene.expect(same, "ADD replaced the eth0 that was there", "An interface of that name is an error.", outcome)
    refused.expect_nothing(outcome, "ADD with a CNI_IFNAME that exists")


@check(
    "add-twice",
    "A second ADD for the same container and interface returns an error, and the first stays.",
    ADD,
    first=True,
    after=_OBJECT,
    batch="errors",
)
def twice(scene: Scene) -> None:
    attachment = scene.added(scene.container())
    before = scene.inside(attachment)
    result = attachment.result
    outcome = scene.add(attachment)
    attachment.result = result
    expect_error(scene, outcome, "a second ADD")
    link, now = before.link("eth0"), scene.inside(attachment)
    there = now.link("eth0")
    same = link is not None and there is not None and link.index == there.index and before.of(link) == now.of(there)
    scene.expect(
        same,
        "the first ADD's eth0 is not what it was",
        "The second call fails; the first one's result stays true.",
        outcome,
    )


_GARBAGE = {
    "no JSON": b"hello",
    "half of a configuration": b'{"cniVersion": "1.0.0", "name": "x", "ty',
    "nothing": b"",
    "a list": b"[1, 2]",
}


@check(
    "add-garbage",
    "ADD with input that is no configuration returns an error of code 6 or 7 and leaves nothing.",
    ERROR_RESULT,
    after=_OBJECT,
    batch="errors",
)
def garbage(scene: Scene) -> None:
    for name, stdin in _GARBAGE.items():
        attachment = scene.container()
        refused = Refused(scene, attachment)
        outcome = scene.call("ADD", attachment, stdin)
        expect_error(scene, outcome, f"ADD with {name} on standard input", (6, 7))
        refused.expect_nothing(outcome, f"ADD with {name} on standard input")


@check(
    "add-unknown-version",
    "ADD with a version that the plugin does not support returns an error of code 1.",
    ERROR_RESULT,
    since="0.2.0",
    after=_OBJECT,
    batch="errors",
)
def unknown_version(scene: Scene) -> None:
    attachment = scene.container()
    scene.prepare(attachment)
    refused = Refused(scene, attachment)
    conf = {**scene.conf(attachment, attachment.before), "cniVersion": "99.0.0"}
    outcome = scene.call("ADD", attachment, conf)
    expect_error(scene, outcome, "ADD with cniVersion 99.0.0", (1,))
    if not scene.subject.position:
        refused.expect_nothing(outcome, "ADD with cniVersion 99.0.0")


@check(
    "missing-variable",
    "ADD without a required variable returns an error of code 4 that names it, and leaves nothing.",
    PARAMETERS,
    after=_OBJECT,
    batch="errors",
)
def missing_variable(scene: Scene) -> None:
    for name in ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"):
        attachment = scene.container()
        scene.prepare(attachment)
        refused = Refused(scene, attachment)
        outcome = scene.call("ADD", attachment, scene.conf(attachment, attachment.before), without=(name,))
        expect_error(scene, outcome, f"ADD without {name}", (4,), name)
        if not scene.subject.position:
            refused.expect_nothing(outcome, f"ADD without {name}")


@check(
    "invalid-variable",
    "ADD with a container ID or an interface name that is none returns an error of code 4, and leaves nothing.",
    PARAMETERS,
    since="1.0.0",
    after=("missing-variable",),
    batch="errors",
    should=True,
)
def invalid_variable(scene: Scene) -> None:
    for name, value in (("CNI_CONTAINERID", "../escape"), ("CNI_IFNAME", "a/b"), ("CNI_IFNAME", "sixteen-letters-")):
        attachment = scene.container()
        scene.prepare(attachment)
        refused = Refused(scene, attachment)
        conf = scene.conf(attachment, attachment.before)
        outcome = scene.call("ADD", attachment, conf, env={name: value})
        expect_error(scene, outcome, f"ADD with {name}={value}", (4,))
        if not outcome.ok and not scene.subject.position:
            refused.expect_nothing(outcome, f"ADD with {name}={value}")


@check(
    "unknown-command", "A CNI_COMMAND that does not exist returns an error.", PARAMETERS, after=_OBJECT, batch="errors"
)
def unknown_command(scene: Scene) -> None:
    attachment = scene.container()
    outcome = scene.call("NONSENSE", attachment)
    expect_error(scene, outcome, "CNI_COMMAND=NONSENSE", (4,))


def _accepted_or_refused(scene: Scene, conf: Json, what: str) -> None:
    """Success and an error are both correct; a crash or an error without its object is not."""
    attachment = scene.container()
    scene.prepare(attachment)
    refused = Refused(scene, attachment)
    outcome = scene.call("ADD", attachment, {**scene.conf(attachment, attachment.before), **conf})
    if not outcome.ok:
        expect_error(scene, outcome, what)
        if not scene.subject.position:
            refused.expect_nothing(outcome, what)


@check(
    "unknown-key",
    "A key that the plugin does not know is ignored, or refused with an error.",
    CONFIGURATION,
    after=_OBJECT,
    batch="errors",
)
def unknown_key(scene: Scene) -> None:
    _accepted_or_refused(scene, {"x-conformance": {"deep": [1, None, "x"]}}, "ADD with a key that nobody knows")


@check(
    "large-config",
    "A configuration of 1 MB is read, or refused with an error.",
    CONFIGURATION,
    after=_OBJECT,
    batch="errors",
)
def large(scene: Scene) -> None:
    _accepted_or_refused(scene, {"x-conformance": "x" * (1 << 20)}, "ADD with a configuration of 1 MB")


@check(
    "config-form",
    "A configuration is read in any form that JSON allows: with line breaks, escapes, and keys in another order.",
    CONFIGURATION,
    after=("add-succeeds",),
    batch="errors",
)
def form(scene: Scene) -> None:
    attachment = scene.container()
    scene.prepare(attachment)
    conf = scene.conf(attachment, attachment.before)
    text = json.dumps({key: conf[key] for key in reversed(conf)}, indent=2).replace("/", "\\/")
    outcome = scene.call("ADD", attachment, text.encode())
    demand = "The configuration is JSON on standard input: a runtime may write it as it likes."
    headline = f"ADD with line breaks and escapes in its configuration fails: {outcome.message}"
    scene.expect(outcome.ok, headline, demand, outcome)


@check(
    "args-in-config",
    "`args` that the plugin does not understand are ignored.",
    CONFIGURATION,
    since="0.2.0",
    after=("add-succeeds",),
    batch="errors",
    should=True,
)
def args_in_config(scene: Scene) -> None:
    scene.changes = {"args": {"cni": {"labels": [{"key": "app", "value": "x"}]}, "x-conformance": True}}
    outcome = scene.add(scene.container())
    scene.expect(
        outcome.ok,
        f"ADD with args that are of no concern fails: {outcome.message}",
        "`args` may hold what a plugin does not understand, and it ignores that.",
        outcome,
    )


@check(
    "cni-args-ignored",
    "CNI_ARGS with IgnoreUnknown=1 and keys that the plugin does not know are accepted.",
    PARAMETERS,
    after=("add-succeeds",),
    batch="errors",
    should=True,
)
def cni_args(scene: Scene) -> None:
    args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;K8S_POD_UID=0b1e;FOO=BAR"
    attachment = scene.container(args=args)
    outcome = scene.add(attachment)
    demand = "All plugins are given CNI_ARGS, whether they use them or not."
    if scene.expect(outcome.ok, f"ADD with CNI_ARGS={args} fails: {outcome.message}", demand, outcome):
        outcome = scene.delete(attachment)
        scene.expect(outcome.ok, f"DEL with CNI_ARGS={args} fails: {outcome.message}", demand, outcome)


@check(
    "cni-args-strange",
    "CNI_ARGS with an unknown key, or that are malformed, are ignored or refused with an error.",
    PARAMETERS,
    after=_OBJECT,
    batch="errors",
)
def cni_args_strange(scene: Scene) -> None:
    for args in ("FOO=BAR", "nonsense", "=;=;="):
        attachment = scene.container()
        scene.prepare(attachment)
        attachment.args = args
        refused = Refused(scene, attachment)
        outcome = scene.call("ADD", attachment, scene.conf(attachment, attachment.before))
        if not outcome.ok:
            expect_error(scene, outcome, f"ADD with CNI_ARGS={args}")
            if not scene.subject.position:
                refused.expect_nothing(outcome, f"ADD with CNI_ARGS={args}")
