"""The list of backends, and the choice of one for a run.

A backend is imported only when it is needed: a run on one backend must not need the dependencies of another. To add a
backend, write a module with a `BACKEND` (see `harness.contract.Backend`) and list it here.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from functools import partial

from harness.contract import Backend, Unavailable
from harness.exits import Ended, Exit


def _load(name: str) -> Backend:
    backend: Backend = importlib.import_module(f"harness.backends.{name}").BACKEND
    return backend


BACKENDS: dict[str, Callable[[], Backend]] = {
    name: partial(_load, name) for name in ("embedded", "container", "kind", "existing")
}


def choose(asked: str, environment: Mapping[str, str]) -> tuple[Backend, str]:
    """The backend of this run, and the reason for the choice.

    Raises Unavailable: the requested backend cannot be used here.
    Raises Ended: no backend has that name.
    """
    why = environment.get("GENIE_WHY", "")
    if asked != "auto":
        if asked not in BACKENDS:
            raise Ended(Exit.USAGE, f"--backend {asked}: known are auto, {', '.join(BACKENDS)}")
        backend = BACKENDS[asked]()
        if reason := backend.unavailable():
            raise Unavailable(f"--backend {asked}: {reason}")
        return backend, why or "asked for"
    embedded = BACKENDS["embedded"]()
    if embedded.inside():
        return embedded, why or "already inside its namespaces"
    try:
        kind = BACKENDS["kind"]()
        reason = kind.unavailable()
    except ImportError as error:
        reason = f"the kind backend lacks {error.name}"
    if not reason:
        return kind, "a Docker engine answers and a node image can be had"
    return embedded, f"not kind: {reason}"
