"""genie.conf: an administrator's settings, read from the runtime's standard input or from the file.

The file is CNI-Genie's own, so that a node that ran CNI-Genie keeps it: `name`, `type`, `cniVersion`, `etcd_endpoints`,
`log_level`, `policy`, `kubernetes`, `default_plugin`. genie's own keys are the fields of `Conf` below. Any other key
(`romana_root`, `hostname`, `cAdvisor_address`, …) is accepted, because existing configurations have many of them. A
known key must have the right type; otherwise it is refused here, by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from genie.cni import version
from genie.cni.config import conf_files, validate_network_name
from genie.cni.errors import CniError, Code
from genie.cni.fields import Fields, decode
from genie.cni.regular import opened

DEFAULT_CONF_DIR = "/etc/cni/net.d"
DEFAULT_STATE_DIR = "/var/lib/cni/genie"
MOST_NETWORKS = 128  # the highest max_networks
GENIE = "genie"  # its own type, as a plugin
#: The figures of a network that `cni: ""` can weigh: bytes per second, drops per second, attachments, the used part of
#: its addresses, and the time to its gateway.
SMART_FIGURES = ("received", "sent", "drops", "attachments", "used", "latency")
#: Keys of a plugin list, not of one plugin (specification, section 1, "Configuration format").
OF_LIST = ("cniVersion", "cniVersions", "name", "disableCheck", "disableGC", "loadOnlyInlinedPlugins")

#: Plugins that use CNI_CONTAINERID alone for the name of a pod's host interface or for their files, so that a second
#: attachment of one container needs an ID of its own (weave, CNI-Genie #133; flannel's file for its DEL).
CONTAINER_ID_ALONE = ("weave-net", "flannel")


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """The API server and the credentials for it: from `kubernetes.kubeconfig`, otherwise from the cluster that genie
    runs in; the other fields override these.
    """

    kubeconfig: str = ""
    api_root: str = ""
    token: str = field(default="", repr=False)
    client_certificate: str = ""
    client_key: str = ""
    certificate_authority: str = ""
    source: str = "genie.conf"  # of all these, for messages
    setting: str = "kubernetes.kubeconfig"  # the one that names the kubeconfig, for messages


@dataclass(frozen=True, kw_only=True)
class AgentSettings:
    """`agent`: settings of `genie agent`; its command line options of the same names win. None: not set here."""

    concurrency: int | None = None  # plugins of one network and verb at once; the rest wait
    listen: str | None = None  # HOST:PORT of /metrics, /healthz and /readyz; "" for none
    grace: float | None = None  # how long SIGTERM waits for calls in flight
    repair: bool = True  # false: changes in a pod are only reported, not repaired
    policy: bool = False  # true: network policies are enforced (docs/policy.md)


@dataclass(frozen=True, kw_only=True)
class Conf:
    """One genie.conf, checked. Times are in seconds."""

    name: str
    cni_version: str
    default_plugin: tuple[str, ...] = ()  # networks of a pod without annotations; "a,b" or ["a", "b"]
    credentials: Credentials = Credentials()
    log_level: str = "info"
    log_file: str = ""
    conf_dir: str = DEFAULT_CONF_DIR
    state_dir: str = DEFAULT_STATE_DIR
    max_networks: int = 32  # for one pod; more are refused
    serial: bool = False  # true: never run two delegates at the same time
    delegate_timeout: float = 60.0  # a delegate that takes longer is killed
    api_timeout: float = 10.0  # an API request that takes longer fails
    events: bool = False  # true: normal Events, too, such as AddedInterface; Events of errors are always written
    drop_undeclared: bool = (
        False  # `undeclared_capabilities` is "drop": capabilities that no plugin declares are dropped, not refused
    )
    namespace_defaults: bool | None = None  # whether a namespace or node names its defaults; None: in agent mode
    namespace_isolation: bool = False  # true: a pod may use only network objects of its own namespace
    global_namespaces: tuple[str, ...] = ("default",)  # and those of these namespaces
    container_id_per_interface: tuple[str, ...] = CONTAINER_ID_ALONE
    smart_weights: Mapping[str, int] = field(default_factory=dict)  # `smart.weights`, how `cni: ""` ranks networks
    agent: AgentSettings = AgentSettings()
    runtime_config: Mapping[str, Any] = field(default_factory=dict)  # from the runtime: portMappings, …
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)


def parse(data: Any, source: str = "genie.conf") -> Conf:
    """Check a decoded genie.conf.

    Raises CniError: code 7, or 1 for an unknown version of the specification; names the field and the expected value.
    """
    read = Fields(data, source)
    cni_version = read.string("cniVersion") or "0.1.0"
    if cni_version not in version.SUPPORTED:
        raise CniError(
            Code.INCOMPATIBLE_VERSION,
            f"{source}: cniVersion {cni_version!r} is not one that genie speaks ({', '.join(version.SUPPORTED)})",
        )
    if not all(isinstance(on, bool) for on in read.object("capabilities").values()):
        raise read.wrong("capabilities", "an object of booleans")  # a runtime would not load it otherwise
    read.strings("cniVersions")  # for the runtime, which passes the version that it chose
    networks = read.number("max_networks", f"a whole number from 1 to {MOST_NETWORKS}", least=1, most=MOST_NETWORKS)
    return Conf(
        name=_name(read),
        cni_version=cni_version,
        default_plugin=_names(read, "default_plugin"),
        credentials=_credentials(read),
        log_level=read.text("log_level", "info").lower(),
        log_file=read.text("log_file"),
        conf_dir=read.text("conf_dir", DEFAULT_CONF_DIR),
        state_dir=read.text("state_dir", DEFAULT_STATE_DIR),
        max_networks=networks or Conf.max_networks,
        serial=read.boolean("serial"),
        delegate_timeout=read.seconds("delegate_timeout", 60.0),
        api_timeout=read.seconds("api_timeout", 10.0),
        events=read.boolean("events"),
        drop_undeclared=_choice(read, "undeclared_capabilities", "refuse", "drop") == "drop",
        namespace_defaults=None if read.data.get("namespace_defaults") is None else read.boolean("namespace_defaults"),
        namespace_isolation=read.boolean("namespace_isolation"),
        global_namespaces=_names(read, "global_namespaces") or ("default",),
        container_id_per_interface=_names(read, "container_id_per_interface") or CONTAINER_ID_ALONE,
        smart_weights=_weights(read.inner("smart").inner("weights")),
        agent=_agent(read.inner("agent")),
        runtime_config=read.object("runtimeConfig"),
        raw=read.data,
    )


def read(text: bytes, source: str = "genie.conf (standard input)") -> Conf:
    """Read genie.conf from the bytes that the runtime sends.

    Raises CniError: 6 when it is not JSON, otherwise as `parse`.
    """
    return parse(decode(text, source), source)


def load(path: str) -> Conf:
    """Read genie.conf from its file. From a list of plugins, it is genie's object with the list's name and versions, as
    a runtime derives it (specification, section 3, "Deriving request configuration from plugin configuration").

    Raises CniError: 5 when it cannot be read; otherwise as `read`.
    """
    data = decoded(path)
    own = _own(data)
    if own is not None and own is not data:
        data = {**own, **{key: data[key] for key in OF_LIST if key in data}}
    return parse(data, path)


def beside(path: str) -> list[dict[str, Any]]:
    """The plugins behind genie's in the list of a file; none if genie's is the only one, or the file is not a list.

    Raises CniError: 7 when a plugin comes before genie's; 5 and 6 as `load`.
    """
    data = decoded(path)
    own = _own(data)
    if own is None or own is data:
        return []
    if data["plugins"][0] is not own:
        raise CniError(Code.INVALID_CONFIG, f"{path}: plugins[0]: expected genie, which makes the pod's interfaces")
    return [plugin for plugin in data["plugins"] if plugin is not own]


def decoded(path: str) -> Any:
    """The JSON in a file. Raises CniError: 5 when it cannot be read, 6 when it is not JSON."""
    try:
        with opened(path) as file:
            return decode(file.read(), path)
    except OSError as error:
        raise CniError(Code.IO_FAILURE, f"cannot read {path}: {error.strerror}") from error


def defaults() -> Conf:
    """The settings where there is no genie.conf."""
    return Conf(name=GENIE, cni_version="1.0.0")


def find(directory: str) -> str | None:
    """The path of genie's own configuration in a net.d directory: the first file with a plugin of its type."""
    try:
        return next(own_files(directory, conf_files(directory)), None)
    except OSError:
        return None


def own_files(directory: str, names: Iterable[str]) -> Iterator[str]:
    """The paths of the files in a directory that have a plugin of genie's type."""
    for path in (f"{directory}/{name}" for name in names):
        with suppress(OSError, CniError), opened(path) as file:
            if _own(decode(file.read(), path)) is not None:
                yield path


def _own(data: Any) -> dict[str, Any] | None:
    """genie's object in a configuration: the whole of it, or the first of its plugins with type genie."""
    plugins = data.get("plugins") if isinstance(data, dict) else None
    candidates = plugins if isinstance(plugins, list) else [data]
    return next((each for each in candidates if isinstance(each, dict) and each.get("type") == GENIE), None)


def _name(read: Fields) -> str:
    name = read.text("name", required=True)
    try:
        validate_network_name(name)
    except CniError as error:
        raise CniError(error.code, f"{read.where}: name: {error.msg}") from error
    return name


def _choice(read: Fields, key: str, *options: str) -> str:
    """One of these words; the first if the key is absent."""
    value = read.string(key, options[0])
    if value not in options:
        raise read.wrong(key, " or ".join(f'"{option}"' for option in options))
    return value


def _weights(read: Fields) -> Mapping[str, int]:
    read.only({key: key for key in SMART_FIGURES})
    found = {key: read.number(key, "a whole number from 0 to 100", most=100) for key in read.data}
    return {key: weight for key, weight in found.items() if weight}


def _agent(read: Fields) -> AgentSettings:
    return AgentSettings(
        concurrency=read.number("concurrency", "a whole number above 0", least=1),
        listen=None if read.data.get("listen") is None else read.text("listen"),
        grace=None if read.data.get("grace") is None else read.seconds("grace", 0.0),
        repair=read.data.get("repair") is None or read.boolean("repair"),
        policy=read.boolean("policy"),
    )


def _credentials(read: Fields) -> Credentials:
    """Read the API server's settings as CNI-Genie does (client/client.go): `kubernetes.k8s_api_root` wins. Of a root in
    `policy` only the part before /api/ counts, because early versions had the version of the API in it.
    """
    kubernetes, policy = read.inner("kubernetes"), read.inner("policy")
    return Credentials(
        kubeconfig=kubernetes.text("kubeconfig"),
        api_root=kubernetes.text("k8s_api_root") or policy.text("k8s_api_root").partition("/api/")[0],
        token=policy.text("k8s_auth_token"),
        client_certificate=policy.text("k8s_client_certificate"),
        client_key=policy.text("k8s_client_key"),
        certificate_authority=policy.text("k8s_certificate_authority"),
        source=read.where,
    )


def _names(read: Fields, key: str) -> tuple[str, ...]:
    """A list of names, or CNI-Genie's form: one string with commas."""
    value = read.data.get(key)
    if isinstance(value, str):
        value = value.split(",")
    if value is not None and not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
        raise read.wrong(key, "a list of names, or one string of names with commas between them")
    return tuple(item.strip() for item in value or () if item.strip())
