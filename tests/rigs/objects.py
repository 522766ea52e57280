"""Kubernetes objects of tests."""

from __future__ import annotations

from typing import Any


def thing(kind: str, name: str, **more: Any) -> dict[str, Any]:
    """An object of a kind and a name."""
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, **more}
