"""genie's configuration on a node: a list of plugins, genie's first, which others may extend. Pure.

The installer of a mesh (istio-cni, linkerd-cni) appends its plugin to the first configuration in net.d, which is
genie's. Plugins that others added stay when genie's own part is written again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from genie.cni import version
from genie.cni.config import NetworkConfig
from genie.config import OF_LIST
from genie.kube import POD_ANNOTATIONS

#: The capabilities that genie itself uses: with the pod's annotations it need not read the pod from the API server.
OWN_CAPABILITIES = (POD_ANNOTATIONS,)


def conflist(
    conf: Mapping[str, Any],
    behind: Sequence[Mapping[str, Any]] = (),
    declared: Iterable[str] = (),
    spoken: Iterable[Collection[str]] = (),
) -> dict[str, Any]:
    """The configuration to install.

    conf: genie.conf: genie's own object, with the list's keys in it.
    behind: the plugins that come after genie in the list.
    declared: capabilities to add; one that genie.conf sets to false stays false.
    spoken: for each plugin behind genie, the versions that it speaks.
    """
    own = {key: value for key, value in conf.items() if key not in OF_LIST}
    if capabilities := {**dict.fromkeys(declared, True), **own.get("capabilities", {})}:
        own["capabilities"] = capabilities
    whole = {key: conf[key] for key in OF_LIST if key in conf}
    if several := _versions(conf, spoken):
        whole["cniVersions"] = several
    return {**whole, "plugins": [own, *map(dict, behind)]}


def _versions(conf: Mapping[str, Any], spoken: Iterable[Collection[str]]) -> list[str]:
    """`cniVersions`: a runtime takes the highest version that it knows. With 1.1.0 it calls STATUS and GC. Older
    runtimes (libcni before 1.2.0) read only `cniVersion`.

    Empty if genie.conf has a version before 1.0.0: its results have another form, which other programs may rely on.
    A version that a plugin behind genie does not speak is left out: the plugin would refuse every call.
    """
    if given := conf.get("cniVersions"):
        return list(given)
    least = conf.get("cniVersion") or version.UNDECLARED
    if not version.at_least(least, "1.0.0"):
        return []
    known = [each for each in version.SUPPORTED if version.at_least(each, least)]
    for versions in spoken:
        known = [each for each in known if each in versions]
    return known if len(known) > 1 else []


def extended(given: Sequence[Mapping[str, Any]], found: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The plugins behind genie: those of the source, and those that others added on the node, in their order. If both
    have a plugin of one type, the source's is kept.
    """
    types = {plugin.get("type") for plugin in given}
    return [*given, *(plugin for plugin in found if plugin.get("type") not in types)]


def declared(networks: Iterable[NetworkConfig]) -> list[str]:
    """The capabilities that a node's networks declare, and genie's own; sorted."""
    names = {
        name
        for network in networks
        for plugin in network.plugins
        for name, on in (plugin.get("capabilities") or {}).items()
        if on
    }
    return sorted(names.union(OWN_CAPABILITIES))
