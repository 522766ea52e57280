"""Finds leftovers of an attachment on the machine: pure functions over two snapshots.

Shared objects come with the first attachment and stay by design: a bridge that the configuration names, a lock file,
chains of a firewall. So there are snapshots before the first attachment (`clean`), after its DEL (`used`), and after
the DEL of a second one (`after`). Objects that are new since `used` are leftovers of the second.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import replace

from harness.conformance.kernel import Kernel
from harness.conformance.machine import Snapshot


def left(used: Snapshot, after: Snapshot, words: Sequence[str]) -> Iterator[str]:
    """Objects that exist after an attachment's DEL and did not exist before its ADD.

    words: identify the attachment, such as its container ID; a file that contains one belongs to it.
    """
    yield from of_kernel(used, after)
    yield from (f"the file {path}" for path in sorted(files(used, after, words)))
    yield from processes(used, after)
    yield from (f"the firewall rule {rule!r}" for rule in sorted(after.firewall - used.firewall))


def of_kernel(used: Snapshot, after: Snapshot) -> Iterator[str]:
    """New interfaces, addresses, routes and rules."""
    yield from interfaces(used, after)
    yield from of_namespace(used.kernel, after.kernel)


def files(used: Snapshot, after: Snapshot, words: Sequence[str]) -> set[str]:
    """Files and empty directories that are new, and files that contain one of the words."""
    found = {path for path in after.files if path not in used.files and not _was_directory(path, used)}
    changed = {path for path in after.files.keys() & used.files.keys() if after.files[path] != used.files[path]}
    return found | {path for path in changed if any(word.encode() in after.files[path] for word in words)}


def grown(before: Snapshot, after: Snapshot, by: int) -> list[str]:
    """Files that have grown by at least this number of bytes, except logs."""
    return [
        path
        for path, content in sorted(after.files.items())
        if path in before.files
        and len(content) - len(before.files[path]) >= by
        and not path.startswith(("/var/log/", "/tmp/"))
        and not path.endswith(".log")
    ]


def _was_directory(path: str, before: Snapshot) -> bool:
    """Whether it is an empty directory, which had files before."""
    return path.endswith("/") and any(each.startswith(path) for each in before.files)


def interfaces(clean: Snapshot, after: Snapshot, shared: Set[str] = frozenset()) -> Iterator[str]:
    """Remaining interfaces that are not shared by design."""
    before = {link.name for link in clean.kernel.links}
    for link in after.kernel.links:
        if link.name not in before and link.name not in shared:
            yield f"the interface {link.name}{f' ({link.kind})' if link.kind else ''}"


def processes(clean: Snapshot, after: Snapshot) -> Iterator[str]:
    for number, command in after.processes.items():
        if number not in clean.processes:
            yield f"the process {command!r}"


def of_namespace(before: Kernel, after: Kernel) -> Iterator[str]:
    """New addresses, routes, neighbours and rules that do not go with a new interface."""
    names = {link.index: link.name for link in after.links}
    known = {link.index for link in before.links}
    for address in after.addresses:
        if address.link in known and address not in before.addresses:
            yield f"the address {address.cidr} of {names.get(address.link)}"
    for route in after.routes:
        if route not in before.routes and (not route.link or route.link in known) and not route.by_kernel:
            yield f"the route to {route.dst} by {names.get(route.link, route.gw)}"
    for neighbour in after.neighbours - before.neighbours:
        if neighbour.link in known:
            yield f"the neighbour {neighbour.cidr} of {names.get(neighbour.link)}"
    for rule in sorted(after.rules - before.rules):
        yield f"the rule {rule}"


def lacking(before: Kernel, now: Kernel, but: Set[str] = frozenset()) -> Iterator[str]:
    """What there was and is no more as it was, except of some interfaces."""
    names = {link.index: link.name for link in before.links}
    for link in before.links:
        found = now.link(link.name)
        if link.name not in but and (found is None or replace(found, master=link.master) != link):
            yield f"the interface {link.name}" + ("" if found is None else f" ({_difference(link, found)})")
    for address in before.addresses:
        if names.get(address.link) not in but and address not in now.addresses:
            yield f"the address {address.cidr} of {names.get(address.link)}"
    for route in before.routes:
        if names.get(route.link) not in but and route not in now.routes:
            yield f"the route to {route.dst} by {names.get(route.link)}"
    for neighbour in before.neighbours - now.neighbours:
        if names.get(neighbour.link) not in but:
            yield f"the neighbour {neighbour.cidr} of {names.get(neighbour.link)}"
    yield from (f"the rule {rule}" for rule in sorted(before.rules - now.rules))


def _difference(old: object, new: object) -> str:
    pairs = ((key, value, vars(new)[key]) for key, value in vars(old).items())
    return ", ".join(f"{key} {one}, now {other}" for key, one, other in pairs if one != other and key != "carrier")
