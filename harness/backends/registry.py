"""Which backend a run takes, and how it is entered: the doors of `harness.backends`, for the pytest plugin.

A backend's own module says how its cluster is made; this knows only which module, in what order they are tried, and
what each of them wants to be told. Nothing is imported before it is needed: a run on one backend must not need what
another takes.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from harness.backends import Cluster


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a run wants of a backend."""

    networks: tuple[str, ...]  # the names that the scenarios to be run take
    profiles: tuple[Path, ...] = ()  # vendors' descriptions of networks
    why: str  # why this backend
    keep: bool = False
    console: Console


@dataclass(frozen=True, kw_only=True)
class Door:
    """How a backend is entered."""

    name: str
    start: Callable[[Wanted], Cluster]
    connect: Callable[[Wanted], Cluster]  # from a pytest-xdist worker, to what the controller started
    unavailable: Callable[[], str] = lambda: ""  # why it cannot be had, as far as one sees from here
    inside: Callable[[], bool] = lambda: True  # whether pytest already runs where this backend needs it
    enter: Callable[[Wanted, Sequence[str]], int] | None = None  # run pytest there; may replace this process


def _module(name: str) -> Any:
    return importlib.import_module(f"harness.backends.{name}")


def _embedded() -> Door:
    from harness.progress import Steps

    embedded = _module("embedded")

    def enter(wanted: Wanted, argv: Sequence[str]) -> int:
        embedded.prepare(
            Steps(console=wanted.console), networks=wanted.networks, profiles=wanted.profiles, why=wanted.why
        )
        embedded.enter(argv)
        raise AssertionError("enter replaces this process")

    return Door(
        name="embedded",
        inside=embedded.inside,
        enter=enter,
        start=lambda wanted: embedded.start(Steps(console=wanted.console), wanted.networks),
        connect=lambda _: embedded.connect(),
    )


def _container() -> Door:
    container = _module("container")
    return Door(
        name="container",
        unavailable=container.unavailable,
        inside=container.inside,
        enter=container.enter,
        start=container.start,
        connect=lambda _: container.connect(),
    )


def _kind() -> Door:
    from harness.progress import Steps

    kind = _module("kind")
    return Door(
        name="kind",
        unavailable=kind.unavailable,
        start=lambda wanted: kind.start(
            wanted.networks or None, why=wanted.why, profiles=wanted.profiles, steps=Steps(console=wanted.console)
        ),
        connect=lambda wanted: kind.attach(why=wanted.why),
    )


def _existing() -> Door:
    from harness.progress import Steps

    existing = _module("existing")
    return Door(
        name="existing",
        start=lambda wanted: existing.start(
            wanted.networks or None, why=wanted.why, profiles=wanted.profiles, steps=Steps(console=wanted.console)
        ),
        connect=lambda wanted: existing.attach(why=wanted.why),
    )


DOORS: dict[str, Callable[[], Door]] = {
    "embedded": _embedded,
    "container": _container,
    "kind": _kind,
    "existing": _existing,
}


def choose(asked: str, environment: Mapping[str, str]) -> tuple[Door, str]:
    """The backend of this run, and why it is that one.

    Raises:
        Unavailable: the one that was asked for cannot be had, or there is none of that name.
    """
    if asked != "auto":
        if asked not in DOORS:
            raise _unavailable(f"--backend {asked}: known are auto, {', '.join(DOORS)}")
        door = DOORS[asked]()
        if door.inside() and door.enter is not None:
            return door, environment.get("GENIE_WHY") or "asked for"
        if reason := door.unavailable():
            raise _unavailable(f"--backend {asked}: {reason}")
        return door, environment.get("GENIE_WHY") or "asked for"
    embedded = DOORS["embedded"]()
    if embedded.inside():
        return embedded, environment.get("GENIE_WHY") or "already inside its namespaces"
    try:
        kind = DOORS["kind"]()
        reason = kind.unavailable()
    except ImportError as error:
        reason = f"the kind backend lacks {error.name}"
    if not reason:
        return kind, "a Docker engine answers and a node image can be had"
    return embedded, f"not kind: {reason}"


def _unavailable(text: str) -> Exception:
    from harness.backends import Unavailable

    return Unavailable(text)
