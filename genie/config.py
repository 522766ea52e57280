"""genie.conf: what an administrator may say to genie, read from the runtime's standard input or from the file.

The file is CNI-Genie's own, so that whoever ran CNI-Genie keeps it: `name`, `type`, `cniVersion`, `etcd_endpoints`,
`log_level`, `policy`, `kubernetes`, `default_plugin`. The keys that are genie's own are the fields of `Conf` below. Any
other key (`romana_root`, `hostname`, `cAdvisor_address`, …) is let through: configurations in the field carry many. A
key that genie does know must have the right type; anything else is refused here, by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from genie.cni import version
from genie.cni.config import validate_network_name
from genie.cni.errors import CniError, Code

DEFAULT_CONF_DIR = "/etc/cni/net.d"
DEFAULT_STATE_DIR = "/var/lib/cni/genie"

#: Plugins that name a pod's host interface, or key what they keep, after CNI_CONTAINERID alone, so that a second
#: attachment of one container needs an ID of its own (weave, CNI-Genie #133; flannel's file for its DEL).
CONTAINER_ID_ALONE = ("weave-net", "flannel")


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """Where the API server is and as whom to ask it: `kubernetes.kubeconfig`, else `policy`, else in the cluster."""

    kubeconfig: str = ""
    api_root: str = ""
    token: str = field(default="", repr=False)
    client_certificate: str = ""
    client_key: str = ""
    certificate_authority: str = ""


@dataclass(frozen=True, kw_only=True)
class Agent:
    """`agent`: what `genie agent` is told by its options of the same names, which win. None: not said here."""

    concurrency: int | None = None  # calls worked on at once; the rest wait
    listen: str | None = None  # HOST:PORT of /metrics, /healthz and /readyz; "" for nowhere
    grace: float | None = None  # how long SIGTERM waits for calls in flight


@dataclass(frozen=True, kw_only=True)
class Conf:
    """One genie.conf, checked. Times are in seconds."""

    name: str
    cni_version: str
    default_plugin: tuple[str, ...] = ()  # networks of a pod that asks for nothing; "a,b" or ["a", "b"]
    credentials: Credentials = Credentials()
    log_level: str = "info"
    log_file: str = ""
    conf_dir: str = DEFAULT_CONF_DIR
    state_dir: str = DEFAULT_STATE_DIR
    serial: bool = False  # true: never two delegates at once
    delegate_timeout: float = 60.0  # a delegate that takes longer is ended
    api_timeout: float = 10.0  # an API request that takes longer has failed
    namespace_isolation: bool = False  # true: a pod may use network objects of its own namespace alone
    global_namespaces: tuple[str, ...] = ("default",)  # except those of these namespaces
    container_id_per_interface: tuple[str, ...] = CONTAINER_ID_ALONE
    agent: Agent = Agent()
    runtime_config: Mapping[str, Any] = field(default_factory=dict)  # what the runtime passes: portMappings, …
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)


def parse(data: Any, source: str = "genie.conf") -> Conf:
    """Check a decoded genie.conf.

    Raises:
        CniError: code 7, or 1 for a version that the specification does not have; names the field and what it
            was expected to be.
    """
    if not isinstance(data, dict):
        raise CniError(Code.INVALID_CONFIG, f"{source}: expected a JSON object, found {_kind(data)}")
    read = Reader(data, source)
    cni_version = read.string("cniVersion", "0.1.0") or "0.1.0"
    if cni_version not in version.SUPPORTED:
        raise CniError(
            Code.INCOMPATIBLE_VERSION,
            f"{source}: cniVersion {cni_version!r} is not one that genie speaks ({', '.join(version.SUPPORTED)})",
        )
    return Conf(
        name=_name(read),
        cni_version=cni_version,
        default_plugin=read.names("default_plugin"),
        credentials=_credentials(read),
        log_level=read.string("log_level", "info").lower(),
        log_file=read.string("log_file"),
        conf_dir=read.string("conf_dir", DEFAULT_CONF_DIR),
        state_dir=read.string("state_dir", DEFAULT_STATE_DIR),
        serial=read.boolean("serial"),
        delegate_timeout=read.seconds("delegate_timeout", 60.0),
        api_timeout=read.seconds("api_timeout", 10.0),
        namespace_isolation=read.boolean("namespace_isolation"),
        global_namespaces=read.names("global_namespaces") or ("default",),
        container_id_per_interface=read.names("container_id_per_interface") or CONTAINER_ID_ALONE,
        agent=_agent(read.inner("agent")),
        runtime_config=read.object("runtimeConfig"),
        raw=data,
    )


def _name(read: Reader) -> str:
    name = read.string("name", required=True)
    try:
        validate_network_name(name)
    except CniError as error:
        raise CniError(error.code, f"{read.where}: name: {error.msg}") from error
    return name


def _agent(read: Reader) -> Agent:
    return Agent(
        concurrency=read.count("concurrency"),
        listen=None if read.data.get("listen") is None else read.string("listen"),
        grace=None if read.data.get("grace") is None else read.seconds("grace", 0.0),
    )


def _credentials(read: Reader) -> Credentials:
    kubernetes, policy = read.inner("kubernetes"), read.inner("policy")
    return Credentials(
        kubeconfig=kubernetes.string("kubeconfig"),
        api_root=policy.string("k8s_api_root") or kubernetes.string("k8s_api_root"),
        token=policy.string("k8s_auth_token"),
        client_certificate=policy.string("k8s_client_certificate"),
        client_key=policy.string("k8s_client_key"),
        certificate_authority=policy.string("k8s_certificate_authority"),
    )


class Reader:
    """Reads fields of one JSON object, each of the type it must have; an absent or null field is its default."""

    def __init__(self, data: Mapping[str, Any], where: str) -> None:
        self.data, self.where = data, where

    def string(self, key: str, default: str = "", *, required: bool = False) -> str:
        value = self._get(key, str, "a string")
        if required and not value:
            raise self._wrong(key, "a string", value)
        if value and any(character == "\0" or "\ud800" <= character <= "\udfff" for character in value):
            raise self._wrong(key, "a string of printable characters", value)  # no path and no header can hold these
        return default if value is None else str(value)

    def boolean(self, key: str) -> bool:
        return bool(self._get(key, bool, "true or false"))

    def seconds(self, key: str, default: float) -> float:
        value = self.data.get(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 86400:
            raise self._wrong(key, "a positive number of seconds", value)
        return float(value)

    def count(self, key: str) -> int | None:
        value = self.data.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise self._wrong(key, "a whole number above 0", value)
        return value

    def object(self, key: str) -> Mapping[str, Any]:
        return self._get(key, dict, "an object") or {}

    def inner(self, key: str) -> Reader:
        return Reader(self.object(key), f"{self.where}: {key}")

    def names(self, key: str) -> tuple[str, ...]:
        """A list of names, or CNI-Genie's one string with commas between them."""
        value = self.data.get(key)
        if isinstance(value, str):
            value = value.split(",")
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._wrong(key, "a list of names, or one string of names with commas between them", value)
        return tuple(item.strip() for item in value if item.strip())

    def _get(self, key: str, kind: type, expected: str) -> Any:
        value = self.data.get(key)
        if value is not None and not isinstance(value, kind):
            raise self._wrong(key, expected, value)
        return value

    def _wrong(self, key: str, expected: str, value: Any) -> CniError:
        found = "nothing" if value is None else _kind(value)
        return CniError(Code.INVALID_CONFIG, f"{self.where}: {key}: expected {expected}, found {found}")


def _kind(value: Any) -> str:
    """A value as an error message shows it: its kind, and itself where it is short and no object."""
    names = {dict: "an object", list: "a list", str: "the string", bool: "the truth value", type(None): "null"}
    name = names.get(type(value), "the number")
    return name if isinstance(value, dict | list | type(None)) else f"{name} {value!r:.60}"
