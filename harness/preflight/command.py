"""`harness preflight`: options, the cluster, exit codes; whatever happens, everything that it made is removed."""

from __future__ import annotations

import argparse
import json
import secrets
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from harness.backends.registry import BACKENDS, choose
from harness.contract import Cluster, RunOptions, Unavailable
from harness.exits import Ended, Exit
from harness.values import listed

if TYPE_CHECKING:
    from rich.console import Console

    from harness.preflight.result import Preflight

LONGEST = 60.0  # seconds of one measurement of throughput
EPILOG = """\
exit status: 0 everything works, 1 something does not, 3 the cluster cannot be used, 4 usage, 130 interrupted
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.epilog, parser.formatter_class = EPILOG, argparse.RawDescriptionHelpFormatter
    known = [name for name in BACKENDS if name != "container"]
    parser.add_argument("--backend", default="existing", choices=known, help="default: existing, by $KUBECONFIG")
    parser.add_argument("--networks", default="", metavar="A,B", help="default: all that the cluster has")
    parser.add_argument("--profile", type=Path, action="append", default=[], help="a description of a network")
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="of one throughput measurement; default: %(default)s"
    )
    parser.add_argument("--report", type=Path, metavar="DIR", help="write preflight.json and preflight.html there")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.set_defaults(do=main)


def main(options: argparse.Namespace) -> int:
    """Run it; returns the exit status.

    Raises Ended: an option is wrong.
    Raises ProfileError: a profile cannot be used.
    """
    left: list[str] = []  # why something could not be removed
    try:
        with _interruptible():
            found = _run(options, left)
        _write(found, options)
    except KeyboardInterrupt:
        print(
            "interrupted" if left else "interrupted; everything that preflight made has been removed", file=sys.stderr
        )
        return Exit.INTERRUPTED
    except (Unavailable, OSError) as error:
        print(error, file=sys.stderr)
        return Exit.BROKEN
    finally:
        for line in left:
            print(f"preflight cannot remove what it made: {line}", file=sys.stderr)
    if not found.passed:
        return Exit.FAILED
    return Exit.BROKEN if left else Exit.PASSED


def _run(options: argparse.Namespace, left: list[str]) -> Preflight:
    from rich.console import Console

    asked = listed(options.networks)
    backend, why = choose(options.backend, {})
    wanted = RunOptions(
        networks=asked,
        profiles=tuple(path.resolve() for path in options.profile),
        why=why,
        console=Console(stderr=True, highlight=False),
    )
    _refuse(asked, options)
    if not backend.inside():
        backend.enter(wanted, [sys.executable, "-m", "harness", *sys.argv[1:]])
    begin = time.monotonic()
    cluster = backend.start(wanted)
    try:
        with _turn(cluster):
            found = _survey(cluster, asked, options.seconds, wanted.console, left)
            return replace(found, seconds=round(time.monotonic() - begin, 1))
    finally:
        with _removing(left):
            cluster.close()


@contextmanager
def _turn(cluster: Cluster) -> Iterator[None]:
    """Wait until no scenario of another run is on the cluster: to it, these pods would be leftovers."""
    from harness.run.locks import turn

    if not cluster.facts.turns:
        yield
        return
    with turn(Path(cluster.facts.turns), alone=True):
        yield


def _refuse(asked: Sequence[str], options: argparse.Namespace) -> None:
    """Refuse options that ask for something that cannot be.

    Raises Ended: they do.
    Raises ProfileError: a profile cannot be used.
    """
    from harness import catalog
    from harness.yamlfile import hint

    if not 0 < options.seconds <= LONGEST:
        raise Ended(Exit.USAGE, f"--seconds {options.seconds:g}: expected more than 0, at most {LONGEST:g}")
    known = catalog.load(options.profile)
    if unknown := [f"unknown network {name!r}{hint(name, known)}" for name in asked if name not in known]:
        raise Ended(Exit.USAGE, "\n".join(unknown))


def _survey(cluster: Cluster, asked: Sequence[str], seconds: float, console: Console, left: list[str]) -> Preflight:
    from harness.objects import ApiError
    from harness.preflight.plan import ALL_UP_TO
    from harness.preflight.result import Preflight
    from harness.preflight.survey import Survey
    from harness.progress import Progress

    facts = cluster.facts
    offers = [offer for name, offer in facts.offers.items() if not asked or name in asked]
    missing = {offer.network: offer.missing for offer in offers if offer.missing}
    there = [offer for offer in offers if not offer.missing]
    reasons = "; ".join(f"{name}: {reason}" for name, reason in missing.items())
    if not there or (asked and missing):
        raise Unavailable(
            f"preflight: the cluster lacks what it should measure: {reasons or 'it has no network at all'}"
        )
    namespace = f"genie-preflight-{secrets.token_hex(3)}"
    survey = Survey(cluster=cluster, namespace=namespace, progress=Progress(console=console), seconds=seconds)
    try:
        survey.begin()
        networks = tuple(survey.network(offer) for offer in there)
    except ApiError as error:
        raise Unavailable(f"preflight: {error}") from error
    finally:
        with _removing(left):
            survey.end()
    return Preflight(
        backend=facts.backend,
        genie=facts.genie,
        api_server=facts.api_server,
        nodes=facts.nodes,
        networks=networks,
        missing=missing,
        sampled=len(facts.nodes) > ALL_UP_TO,
        seconds=0.0,
        made=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM and SIGHUP interrupt as Ctrl-C does."""

    def interrupt(*_: Any) -> NoReturn:
        raise KeyboardInterrupt

    with _handling((signal.SIGTERM, signal.SIGHUP), interrupt):
        yield


@contextmanager
def _removing(left: list[str]) -> Iterator[None]:
    """Signals do not interrupt what removes things; it has limits of its own. Whatever it raises, the rest goes on."""
    with _handling((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), signal.SIG_IGN):
        try:
            yield
        except Exception as error:  # of a cluster's client, for example
            left.append(str(error) or repr(error))


@contextmanager
def _handling(numbers: Sequence[signal.Signals], handler: Any) -> Iterator[None]:
    """Handle these signals so during the context."""
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def _write(found: Preflight, options: argparse.Namespace) -> None:
    from rich.console import Console

    from harness.preflight.page import render
    from harness.preflight.table import show

    if options.report:
        options.report.mkdir(parents=True, exist_ok=True)
        text = json.dumps(found.to_json(), indent=2) + "\n"
        (options.report / "preflight.json").write_text(text, encoding="utf-8")
        (options.report / "preflight.html").write_text(render(found), encoding="utf-8")
    if options.json:
        print(json.dumps(found.to_json(), indent=2))
        return
    console = Console() if Console().is_terminal else Console(width=160)
    show(found, console)
    if options.report:
        console.print(f"report: {options.report / 'preflight.html'}", soft_wrap=True)
