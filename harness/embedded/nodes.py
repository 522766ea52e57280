"""The parent process of the nodes: `python -m harness.embedded.nodes PLAN`.

It imports all modules once, makes the underlay, and forks one daemon for each node. The parent then runs the control
plane. It ends with the run, or when a daemon ends too early.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from pathlib import Path

from harness.embedded import links, linux, node
from harness.embedded.control import Control
from harness.embedded.plan import Plan
from harness.embedded.rest import Access, Client


def main(path: str) -> None:
    """Make the nodes of a plan, and run the control plane."""
    plan = Plan.read(Path(path))
    nets = {one.name: linux.new_net_namespace() for one in plan.nodes}
    legs = [links.Leg(net=nets[one.name], number=one.number, address=one.address) for one in plan.nodes]
    links.join(plan.address, legs)
    children = {}
    for one in plan.nodes:
        if (child := os.fork()) == 0:
            try:
                node.run(plan, one, nets[one.name])
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(1)
        children[child] = one.name
        (Path(plan.place) / f"{one.name}.pid").write_text(str(child))
    threading.Thread(target=_control, args=(plan,), daemon=True).start()
    ended, _ = os.wait()
    sys.exit(f"the daemon of node {children[ended]} has ended")


def _control(plan: Plan) -> None:
    access = Access.read(Path(plan.place) / "access.json")
    Control(Client(access), [one.name for one in plan.nodes], emulated=plan.emulated).run()


if __name__ == "__main__":
    main(sys.argv[1])
