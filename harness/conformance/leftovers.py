"""What an attachment left on the machine: pure, over two snapshots.

Shared things come with the first attachment and stay by design: a bridge that the configuration names, a lock file,
chains of a firewall. So the machine is looked at before anything (`clean`), after a first attachment came and went
(`used`), and after a second one did (`after`). What is new since `used` was left by the second.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set

from harness.conformance.kernel import Kernel
from harness.conformance.machine import Snapshot


def left(used: Snapshot, after: Snapshot, words: Sequence[str]) -> Iterator[str]:
    """What is there after an attachment has gone and was not there before it came.

    Args:
        words: what names the attachment, such as its container ID; a file that mentions it is about it.
    """
    yield from of_kernel(used, after)
    yield from (f"the file {path}" for path in sorted(files(used, after, words)))
    yield from processes(used, after)
    yield from (f"the firewall rule {rule!r}" for rule in sorted(after.firewall - used.firewall))


def of_kernel(used: Snapshot, after: Snapshot) -> Iterator[str]:
    """Interfaces, addresses, routes and rules that are new."""
    yield from interfaces(used, after)
    yield from _kernel(used.kernel, after.kernel)


def files(used: Snapshot, after: Snapshot, words: Sequence[str]) -> set[str]:
    """Files that are new, or that mention one of the words."""
    return {
        path
        for path, content in after.files.items()
        if path not in used.files or (content != used.files[path] and any(word.encode() in content for word in words))
    }


def interfaces(clean: Snapshot, after: Snapshot, shared: Set[str] = frozenset()) -> Iterator[str]:
    """Interfaces that stay and that are not shared by design."""
    before = {link.name for link in clean.kernel.links}
    for link in after.kernel.links:
        if link.name not in before and link.name not in shared:
            yield f"the interface {link.name}{f' ({link.kind})' if link.kind else ''}"


def processes(clean: Snapshot, after: Snapshot) -> Iterator[str]:
    """Processes that go on."""
    for number, command in after.processes.items():
        if number not in clean.processes:
            yield f"the process {command!r}"


def _kernel(before: Kernel, after: Kernel) -> Iterator[str]:
    names = {link.index: link.name for link in after.links}
    known = {link.index for link in before.links}
    for address in after.addresses:
        if address.link in known and address not in before.addresses:
            yield f"the address {address.cidr} of {names.get(address.link)}"
    for route in after.routes:
        if route not in before.routes and (not route.link or route.link in known) and not route.by_kernel:
            yield f"the route to {route.dst} by {names.get(route.link, route.gw)}"
    for rule in sorted(after.rules - before.rules):
        yield f"the rule {rule}"
