"""Plugins that misbehave: each affects only its pod, ends in one error or a result, and leaves no process."""

from __future__ import annotations

import time

from tests.faults.world import Node, drop_netns, make_netns, node

RESULT = (
    """{"cniVersion": "1.0.0", "interfaces": [{"name": "'$CNI_IFNAME'", "sandbox": "'$CNI_NETNS'"}], """
    """"ips": [{"address": "10.1.0.5/24", "interface": 0}]}"""
)
OK = f"echo '{RESULT}'"
ADD = '[ "$CNI_COMMAND" = ADD ] || exit 0\n'
TIMEOUT = 2  # seconds after which a hanging plugin is killed
#: name → (its action, whether the pod comes up; None: both are allowed)
PLUGINS: dict[str, tuple[str, bool | None]] = {
    "good": (ADD + OK, True),
    "hangs": (ADD + "exec sleep 1000", False),
    "ignores-sigterm": (ADD + "trap '' TERM INT HUP\nwhile :; do sleep 1; done", False),
    "child-keeps-stdout": (ADD + f"sleep 500 &\n{OK}", None),
    "daemon-keeps-stdout": (ADD + f"setsid sleep 500 &\n{OK}", None),
    "daemon-then-hangs": (ADD + "setsid sleep 501 &\nsleep 1000", False),
    "closes-stdout-and-hangs": (ADD + "exec >&- 2>&- <&-; sleep 1000", False),
    "100-mb-on-stdout": (ADD + "head -c 100000000 /dev/zero", False),
    "100-mb-on-stderr": (ADD + f"head -c 100000000 /dev/zero >&2; {OK}", True),
    "stdout-without-end": (ADD + "yes", False),
    "stderr-without-end": (ADD + "yes >&2", False),
    "nothing": (ADD + "exit 0", False),
    "garbage": (ADD + r"printf '\377\376{}'", False),
    "deep": (ADD + "head -c 100000 /dev/zero | tr '\\0' '['", False),
    "half-a-result": (ADD + f"{OK} | head -c 60", False),
    "two-results": (ADD + f"{OK};{OK}", False),
    "exit-by-signal": (ADD + "kill -SEGV $$", False),
    "result-and-exit-1": (ADD + f"{OK}; exit 1", False),
    "error-and-exit-0": (ADD + """echo '{"code": 100, "msg": "no"}'""", False),
    "result-on-stderr": (ADD + f"{OK} >&2", False),
    "exit-255": (ADD + "exit 255", False),
}
#: The processes that these leave when they succeed may stay.
DAEMONS = {"child-keeps-stdout": "sleep 500", "daemon-keeps-stdout": "sleep 500"}


def run(*, direct: bool) -> list[str]:
    """Make a pod with each of them; returns the faults."""
    faults: list[str] = []
    with node(direct=direct, conf={"delegate_timeout": TIMEOUT}, pods={name: name for name in PLUGINS}) as here:
        for name, (text, _) in PLUGINS.items():
            here.script(name, text)
        here.ensure_agent()
        before = here.inventory()
        for name in PLUGINS:
            faults += [f"{name}: {fault}" for fault in _pod(here, name, before)]
        faults += [f"log: {line}" for line in here.odd_lines()[:5]]
    return faults


def _pod(here: Node, name: str, before: dict[str, set[str]]) -> list[str]:
    """One pod of that plugin, while a pod of a good plugin comes up."""
    faults = []
    netns, other = make_netns(name), make_netns("other")
    began = time.monotonic()
    process = here.begin("ADD", name, name, netns)
    assert process.stdin
    process.stdin.write(here.stdin)
    process.stdin.close()
    process.stdin = None
    beside = here.call("ADD", "good", "beside", other, timeout=60)
    if beside.status:
        faults.append(f"another pod's ADD failed: {beside.message}")
    outcome = here.finish(process, timeout=60)
    comes_up = PLUGINS[name][1]
    if comes_up is not None and (outcome.status == 0) != comes_up:
        faults.append(f"ADD ended with {outcome.status}: {outcome.message[:200]}")
    if outcome.status and not (outcome.answer.get("code") and outcome.answer.get("msg")):
        faults.append(f"ADD failed without a CNI error object: {outcome.answer}")
    print(f"{name}: ADD {outcome.status} in {time.monotonic() - began:.1f} s {outcome.message[:100]}")
    for pod, container, there in ((name, name, netns), ("good", "beside", other)):
        if (outcome := here.delete(pod, container, there, tries=3)).status:
            faults.append(f"DEL of {container} failed: {outcome.message[:200]}")
    drop_netns(name)
    drop_netns("other")
    if name in DAEMONS:
        here.end_daemons(DAEMONS[name])
    return faults + here.left(before)
