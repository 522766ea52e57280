"""The disk under genie's records: power cuts, no room, no inodes, read-only, damaged, gone.

Pods come up or are refused each time; then the runtime calls DEL until it succeeds, and no address may stay reserved.
"""

from __future__ import annotations

import functools
import os
import random
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tests.faults.world import Node, drop_netns, make_netns, node, run, until

Damage = Callable[[Path, random.Random], object]


def power(*, seed: int, pods: int) -> list[str]:
    """A power failure while pods come up: an ext4 image is copied under load, and the copy is then the disk.

    Every pod with a successful ADD before that must have a record with its addresses.
    """
    dice, faults = random.Random(seed), []
    with _node() as here:
        image, mounted, copy = here.place / "disk", here.place / "var", here.place / "var2"
        run("truncate", "-s", "64M", str(image))
        run("mkfs.ext4", "-q", str(image))
        mounted.mkdir()
        copy.mkdir()
        run("mount", "-o", "loop", str(image), str(mounted))
        here.conf["state_dir"] = str(mounted / "records")
        here.start_agent()
        names = [f"p{number}" for number in range(pods)]
        ready: list[str] = []
        moment = dice.randrange(3, pods // 2)

        def add(name: str) -> None:
            if here.call("ADD", "three", name, make_netns(name)).status == 0:
                ready.append(name)

        with ThreadPoolExecutor(4) as pool:
            jobs = [pool.submit(add, name) for name in names]
            until(lambda: len(ready) >= moment, 60)
            up = list(ready)  # the runtime's state at the power failure
            shutil.copyfile(image, here.place / "cut")
            for job in jobs:
                job.result()
        assert here.agent
        here.agent.kill()
        here.agent.wait()
        run("mount", "-o", "loop", str(here.place / "cut"), str(copy))
        here.conf["state_dir"] = str(copy / "records")
        records = {path.name: path.stat().st_size for path in here.state.glob("*.json")}
        faults += [f"no record of {name}, which was up" for name in up if not records.get(f"{name}@eth0.json")]
        here.start_agent()
        for name in names:
            drop_netns(name)  # the reboot
        print(f"power cut: {len(up)} of {pods} pods up, {len(records)} records on the disk")
        faults += _gone(here, [(name, "") for name in up])
        _unmount(here, mounted, copy)
    return faults


def damage(*, seed: int) -> list[str]:
    """A record with each kind of damage, with and without the pod's namespace."""
    faults, dice = [], random.Random(seed)
    with _node() as here:
        here.start_agent()
        before = here.inventory()
        for name, harm in DAMAGES.items():
            for there in (True, False):
                container = f"{name}-{there}".lower()
                netns = make_netns(container)
                if (outcome := here.call("ADD", "two", container, netns)).status:
                    faults.append(f"{container}: ADD failed: {outcome.message}")
                harm(here.state / f"{container}@eth0.json", dice)
                if not there:
                    drop_netns(container)
                faults += [f"record {name}: {fault}" for fault in _gone(here, [(container, netns if there else "")])]
                drop_netns(container)
        faults += here.left(before)
    return faults


def _empty(path: Path, _: random.Random) -> object:
    return path.write_bytes(b"")


def _zeros(path: Path, _: random.Random) -> object:
    return path.write_bytes(b"\0" * path.stat().st_size)


def _cut(path: Path, dice: random.Random) -> object:
    whole = path.read_bytes()
    return path.write_bytes(whole[: dice.randrange(1, len(whole))])


def _noise(path: Path, dice: random.Random) -> object:
    return path.write_bytes(dice.randbytes(3000))


def _flip(path: Path, dice: random.Random) -> object:
    whole = bytearray(path.read_bytes())
    whole[dice.randrange(len(whole))] ^= 1 << dice.randrange(8)
    return path.write_bytes(bytes(whole))


def _remove(path: Path, _: random.Random) -> object:
    path.unlink()
    return None


DAMAGES: dict[str, Damage] = {
    "empty": _empty, "zeros": _zeros, "cut": _cut, "noise": _noise, "flipped": _flip, "removed": _remove,
}  # fmt: skip


def full(*, seed: int) -> list[str]:
    """No room, no inodes, read-only, or a missing directory: at ADD, at DEL, in the middle of a write."""
    faults: list[str] = []
    for name, options, harm in _trouble(random.Random(seed)):
        with _node() as here:
            mounted = here.place / "var"
            mounted.mkdir()
            run("mount", "-t", "tmpfs", "-o", options, "none", str(mounted))
            here.conf["state_dir"] = str(mounted / "records")
            here.start_agent()
            before = here.inventory()
            first, second = make_netns("first"), make_netns("second")
            if (outcome := here.call("ADD", "two", "first", first)).status and not name.endswith("from the start"):
                faults.append(f"{name}: ADD failed before there was trouble: {outcome.message}")
            harm(here)
            outcome = here.call("ADD", "two", "second", second)
            if outcome.status and not outcome.message:
                faults.append(f"{name}: ADD failed without a reason")
            print(f"{name}: ADD {outcome.status} {outcome.message[:120]}")
            here.call("DEL", "two", "first", first)
            _mend(here, mounted)
            faults += [f"{name}: {fault}" for fault in _gone(here, [("first", first), ("second", second)])]
            drop_netns("first")
            drop_netns("second")
            faults += [f"{name}: {fault}" for fault in here.left(before)]
            _unmount(here, mounted)
    return faults


def _trouble(dice: random.Random) -> Iterator[tuple[str, str, Callable[[Node], object]]]:
    """A name, the file system's options, and the fault after the first pod."""
    yield "no room from the start", "size=64k", functools.partial(_fill, room=0)
    yield "no room", "size=96k", functools.partial(_fill, room=0)
    for _ in range(3):
        room = dice.randrange(1, 8) * 4096
        yield f"room for {room} bytes", "size=96k", functools.partial(_fill, room=room)
    yield "no inodes", "size=4m,nr_inodes=5", _exhaust
    yield "read-only", "size=4m", lambda here: run("mount", "-o", "remount,ro", str(here.place / "var"))
    yield "directory gone", "size=4m", lambda here: shutil.rmtree(here.state)


def _fill(here: Node, room: int) -> None:
    """Leave this number of free bytes."""
    path = here.place / "var" / "filling"
    try:
        with path.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
    except OSError:
        os.truncate(path, max(path.stat().st_size - room, 0))


def _exhaust(here: Node) -> None:
    try:
        for number in range(1000):
            (here.place / "var" / f"inode{number}").touch()
    except OSError:
        pass


def _mend(here: Node, mounted: Path) -> None:
    run("mount", "-o", "remount,rw,size=8m,nr_inodes=1000", str(mounted))
    for path in [*mounted.glob("filling"), *mounted.glob("inode*")]:
        path.unlink()


def _gone(here: Node, pods: list[tuple[str, str]]) -> list[str]:
    """DEL of each pod; then it may have no reserved address."""
    faults = []
    for container, netns in pods:
        outcome = here.delete("two", container, netns, tries=20)
        if outcome.status:
            faults.append(f"DEL of {container} never succeeded: {outcome.message}")
        owned = [name for name, owner in _owners(here) if owner == container]
        faults += [f"{container} has still {owned}"] if owned else []
    return faults


def _owners(here: Node) -> Iterator[tuple[str, str]]:
    """Addresses in host-local's store, with the container that has them."""
    for name in here.addresses():
        text = (here.place / "ipam" / name).read_text()
        yield name, text.split()[0].partition("@")[0]


@contextmanager
def _node() -> Iterator[Node]:
    with node(plugins=os.environ["GENIE_CNI_BIN"]) as here:
        here.three_networks()
        try:
            yield here
        finally:
            run("ip", "link", "del", "up0", check=False)
            run("ip", "link", "del", "br0", check=False)


def _unmount(here: Node, *mounted: Path) -> None:
    assert here.agent
    here.agent.kill()
    here.agent.wait()
    run("umount", *map(str, mounted))
