"""One part of the fault suite by hand: `python -m tests.faults storm --seed 7 --seconds 60`, as root."""

from __future__ import annotations

import argparse
import os
import sys

from tests.faults import crash, delegates, disk, server, storm, world


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parts = parser.add_subparsers(dest="part", required=True)
    one = parts.add_parser("storm", help="ADD and DEL, many at once, while all that runs is killed")
    one.add_argument("--seed", type=int, default=1)
    one.add_argument("--seconds", type=float, default=60, help="no new pod after that")
    one.add_argument("--operations", type=int, default=1_000_000, help="no new pod after so many calls")
    one.add_argument("--workers", type=int, default=20, help="calls at once")
    one.add_argument("--every", type=float, default=0.15, help="mean seconds between two kills")
    one.add_argument("--direct", action="store_true", help="without an agent")
    one.set_defaults(run=storm.run)
    one = parts.add_parser("crash", help="end a process at each system call that changes something")
    one.add_argument("who", choices=["agent", "shim", "direct"])
    one.add_argument("verb", choices=["ADD", "DEL"])
    one.add_argument("--seed", type=int, default=1, help="the order of the moments")
    one.add_argument("--seconds", type=float, default=0, help="no new moment after that; 0: all of them")
    one.add_argument("--at", type=int, default=0, help="this moment alone")
    one.set_defaults(run=crash.run)
    one = parts.add_parser("power", help="the power goes while pods come up")
    one.add_argument("--seed", type=int, default=1)
    one.add_argument("--pods", type=int, default=30)
    one.set_defaults(run=disk.power)
    for name, run, text in (
        ("damage", disk.damage, "records that are damaged"),
        ("full", disk.full, "no room, no inodes, read-only, directory gone"),
    ):
        one = parts.add_parser(name, help=text)
        one.add_argument("--seed", type=int, default=1)
        one.set_defaults(run=run)
    one = parts.add_parser("delegates", help="plugins that misbehave")
    one.add_argument("--direct", action="store_true", help="without an agent")
    one.set_defaults(run=delegates.run)
    one = parts.add_parser("server", help="an API server that is in trouble")
    one.add_argument("--only", default="", choices=server.TROUBLE)
    one.set_defaults(run=server.run)
    one = parts.add_parser("big", help="more and larger objects than a node needs")
    one.add_argument("--objects", type=int, default=100, help="definitions of 1 MB")
    one.add_argument("--pods", type=int, default=5000)
    one.set_defaults(run=server.big)
    return parser


def main() -> None:
    options = vars(_parser().parse_args())
    world.enter("GENIE_FAULTS_ENTERED", ["-m", "tests.faults", *sys.argv[1:]])
    part, run = options.pop("part"), options.pop("run")
    faults = run(**options)
    for fault in faults:
        print(f"FAULT: {fault}")
    print(f"{part}: {len(faults)} faults" if faults else f"{part}: nothing lost")
    sys.stdout.flush()
    os._exit(1 if faults else 0)  # do not wait for threads of a fake server


main()
