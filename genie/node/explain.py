"""`genie explain`: which networks a pod would get, on which interfaces, and why; or the error that it would get.

Of a pod on this node (`explain pod`), or of the objects in files (`explain -f`), before anything is applied: on a
workstation with a kubeconfig, or with nothing but the files (`--offline`).
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from genie import config, kube
from genie.agent import traffic
from genie.agent.sieve import logical_networks
from genie.cni.errors import CniError
from genie.cni.execute import SubprocessExecutor, run_sync
from genie.cni.fields import invalid
from genie.config import DEFAULT_CONF_DIR, Conf, Credentials
from genie.kube import DirectKube
from genie.node.inspect import DEFAULT_BIN_DIR, find, is_direct
from genie.select import networks
from genie.select.annotations import CNI, READ
from genie.select.choose import choose
from genie.select.networks import Directory
from genie.select.preview import LOGICAL_KINDS, Given, Subject, Unseen, preview
from genie.select.selection import Selection

if TYPE_CHECKING:
    from genie.policy.model import Policy


def main(argv: list[str]) -> int:
    """Explain; returns 1 if something is wrong."""
    arguments = _arguments(argv)
    if not arguments.filename:
        for line in of_pod(arguments):
            print(line)
        return 0
    reports = list(of_files(arguments))
    if arguments.json:
        print(json.dumps(reports, indent=2))
    else:
        print("\n".join(line for report in reports for line in _lines(report)))
    return 1 if any("error" in report for report in reports) else 0


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="genie explain",
        description="Show which networks a pod would get, on which interfaces, and why.",
        epilog="With -f: genie.conf is --conf, this node's, or that of the ConfigMap kube-system/genie. On a machine "
        "without networks in net.d, names that are no objects are taken to be there.",
    )
    add = parser.add_argument
    add("what", nargs="?", choices=["pod"], help="the kind of object")
    add("pod", nargs="?", metavar="NAMESPACE/NAME", help="a pod of this node, read from the API server")
    add("-f", "--filename", action="append", metavar="FILE", help="files with objects, YAML or JSON; - is stdin")
    add("--offline", action="store_true", help="use no cluster: objects that are not in the files do not exist")
    add("--kubeconfig", metavar="PATH", help="default: $KUBECONFIG, or ~/.kube/config")
    add("-n", "--namespace", default="default", help="of objects that name none (default: %(default)s)")
    add("--node", default=os.environ.get("NODE_NAME", ""), metavar="NAME", help="the pod's node, for its defaults")
    add("--conf", metavar="PATH", help=f"genie.conf; default: the file of type genie in {DEFAULT_CONF_DIR}")
    add("--conf-dir", metavar="DIR", help="a copy of a node's net.d; default: genie.conf's, where it is")
    add("--bin-dir", metavar="DIR", default=DEFAULT_BIN_DIR, help="default: %(default)s")
    add("--json", action="store_true", help="with -f: print JSON")
    arguments = parser.parse_args(argv)
    if bool(arguments.filename) == bool(arguments.pod):
        parser.error("expected `pod NAMESPACE/NAME` or -f FILE")
    return arguments


def of_pod(arguments: argparse.Namespace) -> Iterable[str]:
    """Show the selection of a pod, without attaching anything."""
    conf = config.load(arguments.conf or find(DEFAULT_CONF_DIR))
    namespace, _, name = arguments.pod.partition("/")
    if not namespace or not name or "/" in name:
        raise CniError(7, f"expected NAMESPACE/NAME, found {arguments.pod!r}")
    with suppress(OSError):
        if conf.namespace_defaults is None and is_direct(f"{arguments.bin_dir}/genie"):
            conf = replace(conf, namespace_defaults=False)
    given = Given(conf, (), node=arguments.node, offline=False)
    pod = run_sync(given.pod(namespace, name, ""))
    for key in READ:
        if key in pod.annotations:
            yield f"{key}: {pod.annotations[key]!r}"
    executor, path = SubprocessExecutor(), (arguments.bin_dir,)
    chosen, notes = run_sync(choose(pod, conf, given, executor, path=path, earlier=traffic.stored()))
    why, _, loads = chosen.why.partition(" (") if CNI in notes else (chosen.why, "", "")
    yield f"why: {why}"
    yield from (f"  {each}" for each in loads.removesuffix(")").split("; ") if each)
    yield from _shown(_networks(chosen))


def of_files(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A report for each object that has to do with networks; for the others none."""
    documents = [each for path in arguments.filename for each in _documents(path, arguments.namespace)]
    conf, on_node = _conf(arguments)
    objects = [data for _, data in documents]
    if not arguments.offline and any(Subject.of(data).known in LOGICAL_KINDS for data in objects):
        objects = [*logical_networks(DirectKube(conf).client), *objects]
    given = Given(conf, objects, node=arguments.node, offline=arguments.offline)
    folder = arguments.conf_dir or (conf.conf_dir if on_node else "")
    directory: Directory = networks.directory(folder) if folder and os.path.isdir(folder) else Unseen()
    path = (arguments.bin_dir,) if on_node and not arguments.conf_dir else None
    for where, data in documents:
        subject = Subject.of(data)
        report: dict[str, Any] = {"file": where, "kind": subject.kind}
        report.update(namespace=subject.namespace, name=subject.name)
        if subject.on_host:
            yield {**report, "why": "the host's network: genie is not called", "networks": []}
            continue
        if policies := _policies(data):
            wrong = next((CniError(7, each.error) for each in policies if each.error), None)
            for_networks = f"for {', '.join(name for each in policies for name in each.networks)}"
            yield {**report, **({"error": wrong.to_json(conf.cni_version)} if wrong else {"why": for_networks})}
            continue
        if subject.pod is None and not subject.known:
            continue
        try:
            chosen = run_sync(preview(subject, conf, given, directory, path, others=objects))
        except CniError as error:
            yield {**report, "error": error.to_json(conf.cni_version)}
        else:
            more = {"why": chosen.why, "networks": _networks(chosen)} if chosen else {}
            yield {**report, **more}


def _policies(data: Mapping[str, Any]) -> Sequence[Policy]:
    """The network policies of an object that genie enforces, also malformed ones."""
    if data["kind"] not in ("MultiNetworkPolicy", "NetworkPolicy"):
        return ()
    from genie.policy import model

    return (model.multi(data),) if data["kind"] == "MultiNetworkPolicy" else model.genie(data)


def _conf(arguments: argparse.Namespace) -> tuple[Conf, bool]:
    """genie.conf, and whether it is this machine's, so that its net.d and plugins count."""
    path = arguments.conf or config.find(DEFAULT_CONF_DIR)
    conf = config.load(path) if path else config.defaults()
    kubeconfig = arguments.kubeconfig or ("" if path else _usual_kubeconfig())
    if kubeconfig:
        setting = "--kubeconfig" if arguments.kubeconfig else "$KUBECONFIG or ~/.kube/config"
        conf = replace(conf, credentials=Credentials(kubeconfig=kubeconfig, source="genie explain", setting=setting))
    if path or arguments.offline:
        return conf, bool(path)
    if not kubeconfig and kube.in_cluster() is None:
        raise CniError(7, "no cluster: give --kubeconfig FILE or $KUBECONFIG, or use --offline")
    client = kube.Client(kube.server(conf.credentials), timeout=conf.api_timeout)
    status, found = client.request("GET", "/api/v1/namespaces/kube-system/configmaps/genie")
    text = ((found or {}).get("data") or {}).get("genie.conf") if status == 200 else None
    if text:
        where = "ConfigMap kube-system/genie"
        conf = replace(config.read(text.encode(), where), credentials=conf.credentials)
    return conf, False


def _usual_kubeconfig() -> str:
    named = os.environ.get("KUBECONFIG", "").split(os.pathsep)[0]
    usual = os.path.expanduser("~/.kube/config")
    return named or (usual if os.path.exists(usual) else "")


def _documents(path: str, namespace: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a file with their positions in it; of lists, their items. Each has its namespace.

    Raises CniError: 5 when it cannot be read, 7 when it is not YAML or holds something else.
    """
    import yaml

    name = "standard input" if path == "-" else path
    try:
        with open(0 if path == "-" else path, encoding="utf-8", closefd=path != "-") as file:
            found = list(yaml.safe_load_all(file))
    except OSError as error:
        raise CniError(5, f"cannot read {name}: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise invalid(name, f"not valid YAML: {' '.join(str(error).split())}") from error
    for position, document in enumerate(found, 1):
        items = document.get("items") if isinstance(document, dict) else None
        for number, data in enumerate(items if isinstance(items, list) else [document], 1):
            where = f"{name}, document {position}" if len(found) > 1 else name
            where += f", item {number}" if isinstance(items, list) else ""
            if data is None:
                continue
            try:
                subject = Subject.of(data, namespace)
            except CniError as error:
                raise invalid(where, error.msg) from error
            yield where, {**data, "metadata": {**(data.get("metadata") or {}), "namespace": subject.namespace}}


def _networks(chosen: Selection) -> list[dict[str, Any]]:
    return [
        {
            "interface": choice.ifname,
            "network": choice.label,
            "plugins": list(choice.network.types),
            "source": choice.network.source,
            **({"dropped": list(choice.dropped)} if choice.dropped else {}),
        }
        for choice in chosen.choices
    ]


def _lines(report: dict[str, Any]) -> Iterator[str]:
    name = f"{report['namespace']}/{report['name']}".lstrip("/")
    yield f"{report['kind']} {name} ({report['file']}): {report.get('why', 'WRONG' if 'error' in report else 'good')}"
    if "error" in report:
        details = report["error"].get("details")
        yield f"  {report['error']['msg']}{f' ({details})' if details else ''}"
    yield from _shown(report.get("networks", ()))


def _shown(networks: Iterable[dict[str, Any]]) -> Iterator[str]:
    for one in networks:
        kinds = " + ".join(one["plugins"])
        yield f"  {one['interface']:<15} {one['network']:<24} {kinds}, from {one['source']}"
        if one.get("dropped"):
            yield f"  {'':<15} DROPPED, because no plugin declares it: {', '.join(one['dropped'])}"
