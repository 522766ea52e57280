"""`genie gc`: deletes orphaned attachments, and gives up on attachments that cannot be deleted."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from genie import config, locks
from genie.agent.daemon import SOCKET
from genie.cni.errors import CniError, Code
from genie.cni.execute import SubprocessExecutor, run_sync
from genie.config import DEFAULT_CONF_DIR, Conf
from genie.kube import DirectKube
from genie.node.inspect import DEFAULT_BIN_DIR, find
from genie.records import DamagedError, Record, RecordedAttachment, Records
from genie.select import networks
from genie.serve import serve
from genie.verbs import collect, leases


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="genie gc",
        description="Delete attachments that the runtime did not delete, although their namespace and pod are gone, "
        "and host-local's empty leases. Anything that may still be in use stays. For direct mode: an agent "
        "does this by itself.",
    )
    add = parser.add_argument
    add("--conf", metavar="PATH", help=f"genie.conf; if not given, the file of type genie in {DEFAULT_CONF_DIR}")
    add("--bin-dir", metavar="DIR", default=DEFAULT_BIN_DIR, help="where the plugins are (default: %(default)s)")
    add("--socket", metavar="PATH", default=SOCKET, help="the agent's (default: %(default)s)")
    add("--dry-run", action="store_true", help="show what would be done, but do nothing")
    add(
        "--forget", metavar="CONTAINER",
        help="give up on a container if its DEL keeps failing because a plugin is gone or broken: genie forgets it, "
        "and addresses and devices of its plugins may stay in use. The ID may be shortened",
    )  # fmt: skip
    arguments = parser.parse_args(argv)
    conf = config.load(arguments.conf or find(DEFAULT_CONF_DIR))
    if arguments.forget is not None:
        if not arguments.forget:
            parser.error("argument --forget: expected a container's ID, found an empty one")
        found = _find(Records(conf.state_dir), arguments.forget)
        for line in _forget(Records(conf.state_dir), found, dry=arguments.dry_run):
            print(line)
        return 0
    dry = arguments.dry_run or locks.answers(arguments.socket)
    if dry and not arguments.dry_run:
        print(f"an agent answers on {arguments.socket}, which collects by itself: nothing is deleted here")
    collection = _Collection(conf, arguments.bin_dir, dry)
    for line in collection.lines():
        print(line)
    return 1 if collection.failed else 0


@dataclass
class _Collection:
    """One pass over all records. dry: change nothing. deleted, failed, kept: numbers of containers, at the end."""

    conf: Conf
    bin_dir: str
    dry: bool
    deleted: int = 0
    failed: int = 0
    kept: int = 0

    def lines(self) -> Iterator[str]:
        """A line for each record, except those of living containers."""
        kube, records = DirectKube(self.conf), Records(self.conf.state_dir)
        known = list(networks.directory(self.conf.conf_dir).networks())
        for record in list(records.all()):
            if isinstance(record, CniError):
                yield f"kept: {record}"
                self.kept += 1
                continue
            why = run_sync(collect.lives(record, kube, on_node=True))
            known += [attached.network for attached in record.attached]
            if not why:
                yield f"{_titled(record)}: {self._delete(record, kube)}"
                continue
            self.kept += 1
            if "not known" in why:
                yield f"{_titled(record)}: kept, because {why}"
        if not self.dry:
            yield from leases.mend(known, records)
            yield from (f"{path}: removed, an unfinished record" for path in records.sweep(0))
        undone = f", {self.failed} cannot be deleted" if self.failed else ""
        yield f"{self.deleted} {'to be ' if self.dry else ''}deleted{undone}, {self.kept} kept"

    def _delete(self, record: Record, kube: DirectKube) -> str:
        if self.dry:
            self.deleted += 1
            return "to be deleted"
        env = {"PATH": os.environ.get("PATH", os.defpath), "CNI_PATH": self.bin_dir}
        request = collect.deletion(record, env, json.dumps(self.conf.raw).encode())
        executor = SubprocessExecutor()
        reply = run_sync(serve(request, kube, executor, self.conf))
        executor.close()
        if reply.status == 0:
            self.deleted += 1
            return "deleted"
        self.failed += 1
        error = json.loads(reply.stdout)
        return f"cannot be deleted: {'; '.join(filter(None, (error['msg'], error.get('details'))))}"


def _find(records: Records, container: str) -> list[Record | DamagedError]:
    """The records of a container.

    Raises CniError: there is none, or the shortened ID matches several.
    """
    found = [
        each
        for each in records.all()
        if isinstance(each, Record | DamagedError) and each.container_id.startswith(container)
    ]
    containers = {each.container_id for each in found}
    if not found:
        raise CniError(Code.UNKNOWN_CONTAINER, f"there is no record of a container {container} in {records.directory}")
    if len(containers) > 1:
        raise CniError(Code.INVALID_ENVIRONMENT, f"{container} is short for {', '.join(sorted(containers))}")
    return found


def _forget(records: Records, found: Iterable[Record | DamagedError], *, dry: bool) -> Iterator[str]:
    for each in found:
        if isinstance(each, Record) and not _has_failed(each):
            raise CniError(
                Code.INVALID_ENVIRONMENT,
                f"{each.container_id} is attached and no DEL of it failed: delete its pod; this is for containers that "
                "cannot be deleted",
            )
        for attached in each.attached if isinstance(each, Record) else ():
            yield f"{_titled(each)}: {'to be ' if dry else ''}given up: {_held(attached)}"
        if isinstance(each, DamagedError):
            yield f"{each.path}: {'to be ' if dry else ''}removed"
        if not dry:
            records.remove(each.container_id, each.ifname)


def _has_failed(record: Record) -> bool:
    """Whether a DEL has been tried, or the namespace is gone, so that the container is dead."""
    tried = not record.complete or any(attached.left is not None for attached in record.attached)
    return tried or collect.has_namespace(record.netns, on_node=True) is False


def _held(attached: RecordedAttachment) -> str:
    kinds = attached.network.types
    left = range(len(kinds)) if attached.left is None else attached.left
    plugins = ", ".join(kinds[position] for position in left)
    addresses = ", ".join(ip.address for ip in attached.ips) if attached.result else "addresses that it gave"
    return f"{attached.ifname} of {attached.label}; {plugins} may hold {addresses} for good"


def _titled(record: Record | DamagedError) -> str:
    return f"{record.title if isinstance(record, Record) else '(no pod)'}  {record.container_id[:13]}"
