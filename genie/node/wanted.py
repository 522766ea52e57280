"""Decides the files to install on a node from the command line: the plugin, genie.conf and a kubeconfig."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import genie
from genie import config, kube
from genie.cni.errors import CniError, Code
from genie.node.files import Wanted
from genie.select.annotations import asks

PACKAGE = os.path.dirname(os.path.abspath(genie.__file__))
DEFAULT_CONF: Mapping[str, Any] = {
    **{"cniVersion": "1.0.0", "name": "genie", "type": "genie"},
    "capabilities": {"portMappings": True, "bandwidth": True, "dns": True},  # the runtime is asked to pass these
}


def kubeconfig(environment: Mapping[str, str] = os.environ) -> bytes | None:
    """A kubeconfig of the pod's service account, for the node; None outside a cluster.

    It has the API server's Service address, which kube-proxy serves on the node as well, and the token itself, because
    the node does not see the pod's files; `--keep` renews it.
    """
    server = kube.in_cluster(environment)
    if server is None:
        return None
    import base64

    authority = base64.b64encode(server.ca.encode()).decode()
    cluster, user = {"server": server.url, "certificate-authority-data": authority}, {"token": server.bearer()}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "genie",
        "clusters": [{"name": "cluster", "cluster": cluster}],
        "users": [{"name": "genie", "user": user}],
        "contexts": [{"name": "genie", "context": {"cluster": "cluster", "user": "genie"}}],
    }
    return json.dumps(document, indent=2).encode() + b"\n"


def read_conf(
    options: argparse.Namespace, given: Mapping[str, Any] | None = None
) -> tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]:
    """The genie.conf to install, and the plugins behind genie if it is a list: the given one, otherwise the file of
    --conf, otherwise one without settings.

    Raises CniError: it cannot be read or is wrong, or direct mode would have no way to the API server.
    """
    conf = config.load(options.conf) if options.conf else config.parse(given or DEFAULT_CONF)
    asks(kube.Pod(namespace="", name=""), conf)  # a default_plugin that no pod could get
    if options.direct and not options.no_kubeconfig and kubeconfig() is None:
        kube.server(conf.credentials)  # without an agent each call needs it: no pod would come up
    return conf.raw, config.beside(options.conf) if options.conf else ()


def with_conf(options: argparse.Namespace, conf: Mapping[str, Any], behind: Sequence[Mapping[str, Any]] = ()) -> Wanted:
    """The files to install, with this genie.conf and these plugins behind genie.

    Raises CniError: there is no shim for this machine.
    """
    access = None if options.no_kubeconfig else kubeconfig()
    return Wanted(plugin=plugin(options.direct), conf=conf, kubeconfig=access, behind=behind)


def plugin(direct: bool) -> bytes:
    """The file that the runtime will call.

    Raises CniError: there is no shim for this machine, and none could be compiled.
    """
    if direct:
        import compileall

        compileall.compile_dir(PACKAGE, quiet=2)  # if the cache cannot be written, Python compiles at each start
        return launcher().encode()
    from genie.agent import shim

    try:
        return shim.binary().read_bytes()
    except (shim.BuildError, ValueError) as error:
        raise CniError(Code.INTERNAL, f"there is no shim to install: {error}") from error


def launcher() -> str:
    """The script for direct mode. The runtime waits for it at every pod, so it starts as fast as Python can:

    -I, -S: skip the environment and `site` (with the machine's .pth files); the module paths are written into the
    script instead. -B: a CNI call writes no bytecode; `plugin` has compiled the modules already.
    """
    import importlib.util

    paths = [os.path.dirname(PACKAGE)]
    yaml = importlib.util.find_spec("yaml")  # used to read a kubeconfig in YAML
    if yaml is not None and yaml.origin is not None:
        paths.append(os.path.dirname(os.path.dirname(yaml.origin)))
    return f"""#!{sys.executable} -BIS
import sys
sys.path += {list(dict.fromkeys(paths))!r}
from genie.__main__ import main
sys.exit(main())
"""
