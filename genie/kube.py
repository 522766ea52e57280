"""Access to the API server: reads pods and network objects, and writes annotations and Events.

The rest of genie uses only `Kube`. In direct mode, `DirectKube` asks the API server each time; in agent mode, the
agent's cache answers. `Client` is the HTTP client of both. It uses the standard library, because importing a Kubernetes
client takes too long for an ADD in direct mode. It has only GET, PATCH, POST and watch.
"""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote, urlsplit

from genie.cni.errors import CniError, Code
from genie.cni.fields import Fields, invalid
from genie.cni.regular import opened
from genie.config import Conf, Credentials

if TYPE_CHECKING:
    from genie.event import Event

Shorter = Callable[[Mapping[str, str]], Iterable[Mapping[str, "str | None"]]]
"""Yields shorter annotations for when they are too long, longest first; None for an annotation to remove."""

SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
NETWORK_OBJECTS = {  # kind: (API group and version, resource)
    "NetworkAttachmentDefinition": ("k8s.cni.cncf.io/v1", "network-attachment-definitions"),
    "LogicalNetwork": ("alpha.network.k8s.io/v1", "logicalnetworks"),
    "PhysicalNetwork": ("alpha.network.k8s.io/v1", "physicalnetworks"),
}
#: Objects whose annotation or label `DEFAULTS` names the default networks of their pods: kind → resource.
OWNERS = {"Namespace": "namespaces", "Node": "nodes"}
DEFAULTS = "genie.io/default-networks"
#: Annotations of network policies. CNI-Genie's: its code has the first spelling, its documentation the second.
POLICY_FOR = "k8s.v1.cni.cncf.io/policy-for"
GENIE_POLICY = ("genieNetworkPolicy", "genieNetworkpolicy")
FAIL = "genie.io/fail"
JSON = "application/json"
ANSWER_MAX = 8 << 20
"""The limit for an answer to `Client.request`, in bytes; etcd's default limit for an object is 1.5 MiB."""
FILE_MAX = 1 << 20
"""The limit for a kubeconfig, and for a file that it names, in bytes."""
SHOWN = 500
"""The limit for a text from the network in an error, in characters."""
PIECE = 65536
"""Bytes to read at once."""
EVENT_TIMEOUT = 2.0
"""Seconds that direct mode waits for the API server to accept an Event."""
#: A mirror pod (the API server's copy of a static pod) has a UID of its own; the runtime uses the one in these. Only
#: the second marks a mirror: any pod's template may have the first.
HASH, MIRROR = "kubernetes.io/config.hash", "kubernetes.io/config.mirror"
#: The source of a pod, from the kubelet by the runtime: "api", otherwise the pod is a static one.
SOURCE = "kubernetes.io/config.source"
POD_ANNOTATIONS = "io.kubernetes.cri.pod-annotations"
"""The capability with which containerd (1.7 and later) and CRI-O pass a pod's annotations."""


@dataclass(frozen=True, kw_only=True)
class Pod:
    """The fields of a pod that genie needs. Both the watch and a GET make one, so that they cannot differ."""

    namespace: str
    name: str
    uid: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)  # for network policies

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Pod:
        meta = data.get("metadata") or {}
        return cls(
            namespace=meta.get("namespace", ""),
            name=meta.get("name", ""),
            uid=meta.get("uid", ""),
            annotations=meta.get("annotations") or {},
            labels=meta.get("labels") or {},
        )

    def is_it(self, uid: str) -> bool:
        """Whether this pod has the runtime's K8S_POD_UID; without one, every pod of the name matches."""
        return not uid or uid == self.uid or uid in self.static_uids

    @property
    def is_static(self) -> bool:
        """Whether its UID is a static pod's, so that the API server can only have a mirror of it."""
        return MIRROR not in self.annotations and self.annotations.get(SOURCE, "api") != "api"

    @property
    def static_uids(self) -> tuple[str, ...]:
        """The possible UIDs of a mirror pod's static pod, as the runtime knows it; empty for other pods."""
        if MIRROR not in self.annotations:
            return ()
        return tuple(dict.fromkeys(filter(None, (self.annotations.get(HASH), self.annotations[MIRROR]))))


class Default(SimpleNamespace):
    """The default networks of a namespace's or a node's pods, as its annotation or label `DEFAULTS` has them. Not a
    dataclass, because each ADD in direct mode makes the class anew.

    kind: Namespace or Node. place: annotation or label.
    """

    kind: str
    name: str
    networks: str
    place: str = "annotation"

    @classmethod
    def of(cls, kind: str, name: str, data: Mapping[str, Any] | None) -> Default | None:
        """The annotation of an object, otherwise the label; None if it has neither, or blank ones. In a file, the
        value may have any type.
        """
        meta = (data or {}).get("metadata") or {}
        for place in ("annotation", "label"):
            found = meta.get(f"{place}s")
            text = found.get(DEFAULTS) if isinstance(found, dict) else None
            if text is not None and not (isinstance(text, str) and not text.strip()):
                of = cls(kind=kind, name=name, networks=text)
                return of if place == of.place else cls(**vars(of), place=place)
        return None


class Kube(Protocol):
    """The API server, asked directly or through a cache. Every method may raise CniError 11 when it does not answer."""

    async def pod(self, namespace: str, name: str, uid: str, given: Mapping[str, str] | None = None) -> Pod:
        """The pod; raises CniError 3 when there is no such pod, or only one of another UID.

        given: its annotations, if the runtime passes them with the UID. These are the kubelet's current ones, so the
        API server need not be asked.
        """

    async def network(self, kind: str, namespace: str, name: str, *, needed: bool = False) -> Mapping[str, Any] | None:
        """An object of a kind in NETWORK_OBJECTS or OWNERS, or None when there is none or no such CRD; with `needed`,
        absence is confirmed with the API server.
        """

    async def defaults(self, namespace: str) -> Default | None:
        """The default networks of the pods of a namespace, otherwise of this node; None if neither has any."""

    async def annotate(self, pod: Pod, annotations: Mapping[str, str], shorter: Shorter) -> str:
        """Write annotations to the pod, as one patch; at once (direct mode) or soon, with retries (agent mode).

        shorter: the annotations to write instead if the API server refuses so much, longest first.

        Returns the reason that less than all was written; empty if all was, or will be.
        """

    async def event(self, pod: Pod, reason: str, message: str, *, warning: bool = False) -> None:
        """Show this with the pod, as an `Event`. Never raises: an Event must not change the outcome of a call."""


class DirectKube:
    """Asks the API server directly at each call: direct mode."""

    def __init__(self, conf: Conf) -> None:
        self.conf = conf
        self._client: Client | None = None
        self._events: Client | None = None
        self._mute = False

    @property
    def client(self) -> Client:
        if self._client is None:
            self._client = Client(server(self.conf.credentials), timeout=self.conf.api_timeout)
        return self._client

    async def pod(self, namespace: str, name: str, uid: str, given: Mapping[str, str] | None = None) -> Pod:
        if given is not None and uid:
            return Pod(namespace=namespace, name=name, uid=uid, annotations=given)
        return read_pod(self.client, namespace, name, uid)

    async def network(self, kind: str, namespace: str, name: str, *, needed: bool = False) -> Mapping[str, Any] | None:
        return read_network(self.client, kind, namespace, name)

    async def defaults(self, namespace: str) -> Default | None:
        """Of the namespace, if genie.conf asks for it: it costs a request. What a node has, its genie.conf names."""
        if not (self.conf.namespace_defaults and namespace):
            return None
        return Default.of("Namespace", namespace, await self.network("Namespace", "", namespace))

    async def annotate(self, pod: Pod, annotations: Mapping[str, str], shorter: Shorter) -> str:
        return write_annotations(self.client, pod, annotations, shorter)

    async def event(self, pod: Pod, reason: str, message: str, *, warning: bool = False) -> None:
        """Send it now, because direct mode has no later; after the first failure, no more Events are sent."""
        if self._mute:
            return
        try:
            if self._events is None:
                self._events = Client(self.client.server, timeout=min(self.conf.api_timeout, EVENT_TIMEOUT))
            report_event(self._events, pod_event(pod, reason, message, warning=warning))
        except CniError:
            self._mute = True


def read_pod(client: Client, namespace: str, name: str, uid: str) -> Pod:
    """GET a pod.

    Raises CniError: 3 (the specification's "container unknown") when there is none of that name and UID; 11 when a
    retry can help: the API server is away, or the pod is a static one whose mirror the kubelet has not made yet, or not
    replaced yet after its file changed.
    """
    static = bool(uid) and "-" not in uid  # a static pod's UID is a hash, unless its file says otherwise
    pod = _current(client, namespace, name)
    if pod is None:
        if static:
            raise CniError(Code.TRY_AGAIN, f"pod {namespace}/{name}: its mirror pod is not on the API server yet")
        raise CniError(Code.UNKNOWN_CONTAINER, f"pod {namespace}/{name}: no such pod on the API server")
    if not pod.is_it(uid):
        if static:
            there = f"the mirror of static pod {pod.static_uids[0]}" if pod.static_uids else f"a pod of UID {pod.uid}"
            raise CniError(
                Code.TRY_AGAIN, f"pod {namespace}/{name} on the API server is {there}, not yet the mirror of {uid}"
            )
        raise CniError(
            Code.UNKNOWN_CONTAINER,
            f"pod {namespace}/{name}: the API server has one of UID {pod.uid}, the runtime asks for UID {uid}: "
            "the pod was deleted and made again",
        )
    return pod


def _current(client: Client, namespace: str, name: str) -> Pod | None:
    """The pod of this name, of any UID; None if there is none."""
    status, data = client.request("GET", _path(namespace, name))
    if status == 404 and not isinstance(data, dict):  # a proxy's: the pod may be there
        raise CniError(Code.TRY_AGAIN, f"cannot read pod {namespace}/{name}: 404, but not in the API server's form")
    return None if status == 404 else Pod.of(good(status, data, f"read pod {namespace}/{name}"))


def read_network(client: Client, kind: str, namespace: str, name: str) -> Mapping[str, Any] | None:
    """GET a network object; None for 404, which is also the answer for a missing CRD."""
    if kind in OWNERS:
        path = f"/api/v1/{OWNERS[kind]}/{_part(name)}"
    else:
        group, resource = NETWORK_OBJECTS[kind]
        path = f"/apis/{group}/namespaces/{_part(namespace)}/{resource}/{_part(name)}"
    status, data = client.request("GET", path)
    return None if status == 404 else good(status, data, f"read {kind} {f'{namespace}/{name}'.lstrip('/')}")


def write_annotations(client: Client, pod: Pod, annotations: Mapping[str, str], shorter: Shorter) -> str:
    """Write annotations to a pod, or as many of them as fit; does nothing if the pod is gone.

    Returns the reason that less than all was written; empty if all was, or if there is no such pod any more.

    Raises RefusedError: the API server accepts none of them.
    Raises MirrorMissingError: the static pod has no mirror.
    Raises CniError: 11; it cannot be reached.
    """
    if pod.is_static:
        pod = _mirror(client, pod)
    refused = None
    for notes in chain((annotations,), shorter(annotations)):
        try:
            patch_annotations(client, pod, notes)
        except RefusedError as error:
            # The refusal of a patch for another UID differs: 409 (conflict), or 422 from kube-apiserver 1.35.
            if error.status in (404, 409, 422) and _is_gone(client, pod):
                return ""
            refused = refused or error
            if not error.too_large:
                raise refused from None
        else:
            return str(refused or "")
    assert refused
    raise refused


def _mirror(client: Client, pod: Pod) -> Pod:
    found = _current(client, pod.namespace, pod.name)
    if found and found.is_it(pod.uid):
        return found
    raise MirrorMissingError(
        Code.TRY_AGAIN, f"static pod {pod.namespace}/{pod.name}: its mirror pod is not on the API server yet"
    )


def _is_gone(client: Client, pod: Pod) -> bool:
    found = _current(client, pod.namespace, pod.name)
    return found is None or not found.is_it(pod.uid)


def patch_annotations(client: Client, pod: Pod, annotations: Mapping[str, str | None]) -> None:
    """One merge patch. None removes an annotation. The patch has the UID, so that a new pod of the same name is never
    changed.

    Raises RefusedError: also for a pod that is gone.
    Raises CniError: 11; the API server cannot be reached.
    """
    meta: dict[str, Any] = {"annotations": dict(annotations)}
    if pod.uid:
        meta["uid"] = pod.uid
    status, data = client.request("PATCH", _path(pod.namespace, pod.name), {"metadata": meta})
    good(status, data, f"annotate pod {pod.namespace}/{pod.name}")


def pod_event(pod: Pod, reason: str, message: str, *, warning: bool = False) -> Event:
    """An Event about a pod. For a mirror pod it has the static pod's UID, which `kubectl describe` looks for."""
    from genie.event import Event

    uid = pod.annotations.get(MIRROR) or pod.uid
    return Event(
        reason=reason, message=message, namespace=pod.namespace, name=pod.name, uid=uid, warning=warning
    )  # fmt: skip


def report_event(client: Client, event: Event, node: str = "") -> None:
    """Write a new Event now. For direct mode and commands; the agent has a Reporter.

    Raises CniError: as `create_event`.
    """
    from genie import event as events

    now = time.time()
    create_event(client, events.body(event, events.object_name(event), node, first=now, last=now, count=1))


def create_event(client: Client, body: Mapping[str, Any]) -> None:
    """POST an Event. If it exists already, an earlier attempt wrote it.

    Raises RefusedError: the API server refuses it.
    Raises CniError: 11; it cannot be reached.
    """
    where = body["involvedObject"]
    status, data = client.request("POST", f"/api/v1/namespaces/{_part(body['metadata']['namespace'])}/events", body)
    if status != 409:
        good(status, data, f"write an Event of {where['kind']} {where['namespace']}/{where['name']}")


def count_event(client: Client, event: Event, name: str, last: float, count: int) -> bool:
    """Change the count and the last time of an Event; False: the API server does not have it any more.

    Raises CniError: as `create_event`.
    """
    from genie import event as events

    path = f"/api/v1/namespaces/{_part(events.place(event))}/events/{_part(name)}"
    status, data = client.request("PATCH", path, events.happened(last, count))
    if status == 404:
        return False
    good(status, data, f"count an Event of {event.kind} {event.namespace}/{event.name}")
    return True


def _path(namespace: str, pod: str) -> str:
    return f"/api/v1/namespaces/{_part(namespace)}/pods/{_part(pod)}"


def _part(name: str) -> str:
    """A name as one part of a path, quoted, because the runtime may have put any bytes into it."""
    return quote(name, safe="", errors="surrogateescape")


def good(status: int, data: Any, doing: str) -> Mapping[str, Any]:
    """The object that the API server answers with.

    doing: for the error: "cannot {doing}".

    Raises RefusedError: it answers with an error.
    Raises CniError: 11; the answer is no object.
    """
    if 200 <= status < 300:
        if _is_object(data):
            found: Mapping[str, Any] = data
            return found
        raise CniError(Code.TRY_AGAIN, f"cannot {doing}: the API server answers {status}, but not with an object")
    reason = data.get("message") if isinstance(data, dict) else ""
    reason = _brief(reason) if isinstance(reason, str) else ""
    hint = {
        **dict.fromkeys((301, 302, 303, 307, 308), "; genie follows no redirect: name the API server itself"),
        401: "; genie's credentials are not accepted: see kubernetes.kubeconfig in genie.conf",
        403: "; genie's account lacks the right: see the ClusterRole in genie's manifest",
    }.get(status, "")
    raise RefusedError(status, f"cannot {doing}: the API server answers {status} {reason}".rstrip() + hint)


def _brief(text: str) -> str:
    """A text from the network, for an error: one line, and not a long one."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[:2000]).split())
    return line if len(line) <= SHOWN else f"{line[: SHOWN - 1]}…"


def _is_object(data: Any) -> bool:
    """Whether an answer has the form of an object, as far as genie reads it; a proxy's own answer, for example, has
    not.
    """
    meta = data.get("metadata") if isinstance(data, dict) else None
    return isinstance(meta, dict) and isinstance(meta.get("annotations") or {}, dict)


class MirrorMissingError(CniError):
    """A static pod cannot be written to: the API server has no mirror of it, or one of an earlier version."""


class RefusedError(CniError):
    """The API server answered, with an error. status: HTTP's."""

    def __init__(self, status: int, msg: str) -> None:
        super().__init__(Code.INVALID_CONFIG if status in (400, 401, 403) else Code.TRY_AGAIN, msg)
        self.status = status

    @property
    def passing(self) -> bool:
        """Whether the same request may succeed later: the cause is the time, the credentials or the rights."""
        return not (400 <= self.status < 500 or self.too_large) or self.status in (401, 403, 408, 409, 429)

    @property
    def too_large(self) -> bool:
        """Whether a shorter one may be accepted: 422 is "Too long", 413 and etcd's own answer are about the whole
        object.
        """
        return self.status in (413, 422) or "request is too large" in self.msg


@dataclass(frozen=True, kw_only=True)
class ApiServer:
    """An API server and its credentials. Certificates are PEM text; `token_file` is read for each new connection."""

    url: str
    ca: str = ""
    verify: bool = True
    server_name: str = ""
    token: str = field(default="", repr=False)
    token_file: str = ""
    token_field: str = field(default="", compare=False)  # where `token_file` is from, for messages
    certificate: str = field(default="", repr=False)
    key: str = field(default="", repr=False)

    def bearer(self) -> str:
        """The bearer token; a file is read each time, because the kubelet renews it in place."""
        if not self.token_file:
            return self.token
        if not (token := _read(self.token_file, self.token_field).strip()):
            raise invalid(self.token_field, f"{self.token_file}: expected a token, found nothing")
        return token


def server(credentials: Credentials, environment: Mapping[str, str] = os.environ) -> ApiServer:
    """The API server of genie.conf: from its kubeconfig, otherwise the cluster that genie runs in. Values from `policy`
    and `kubernetes.k8s_api_root` override it, as in CNI-Genie (client/client.go, buildKubeConfig), because CNI-Genie's
    own kubeconfig names no server and no token.

    Raises CniError: 7, when none of them is usable; the message has the reason for each.
    """
    if credentials.kubeconfig:
        return _laid_over(_from_kubeconfig(credentials), credentials)
    if credentials.api_root:
        return _laid_over(ApiServer(url=credentials.api_root), credentials)
    if found := in_cluster(environment):
        return _laid_over(found, credentials)
    raise invalid(
        credentials.source,
        "no way to the API server: give kubernetes.kubeconfig, or policy.k8s_api_root with policy.k8s_auth_token (and "
        "there is no in-cluster service account here)",
    )


def _laid_over(server: ApiServer, given: Credentials) -> ApiServer:
    """Values of genie.conf win. As with client-go's overrides, a name for TLS belongs to the server that it came
    with, a token takes the place of a token file, and an authority is one to verify by.
    """
    changes: dict[str, Any] = {}
    policy = f"{given.source}: policy.k8s_"
    if given.api_root:
        changes.update(url=given.api_root, server_name="")
    if given.token.strip():
        changes.update(token=given.token.strip(), token_file="")
    if given.certificate_authority:
        changes.update(ca=_pem(given.certificate_authority, f"{policy}certificate_authority"), verify=True)
    if given.client_certificate:
        changes.update(certificate=_pem(given.client_certificate, f"{policy}client_certificate"))
    if given.client_key:
        changes.update(key=_pem(given.client_key, f"{policy}client_key"))
    whole = replace(server, **changes) if changes else server
    if bool(whole.certificate) != bool(whole.key):
        has, lacks = ("certificate", "key") if whole.certificate else ("key", "certificate")
        source = f"kubeconfig {given.kubeconfig}" if given.kubeconfig else given.source
        raise invalid(source, f"client-{has}: expected a client-{lacks} with it")
    return whole


def in_cluster(environment: Mapping[str, str] = os.environ) -> ApiServer | None:
    """The API server of this pod's cluster, with the pod's service account; None outside a cluster."""
    host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT", "443")
    token = f"{SERVICE_ACCOUNT}/token"
    if not host or not os.path.exists(token):
        return None
    url = f"https://{f'[{host}]' if ':' in host else host}:{port}"
    where = "this pod's service account"
    return ApiServer(url=url, ca=_pem(f"{SERVICE_ACCOUNT}/ca.crt", where), token_file=token, token_field=where)


#: The fields of a cluster and of a user in a kubeconfig that genie knows. The last ones of each line ask for nothing:
#: genie never asks for compression, extensions are other programs' own notes, api-version is of kubectl before 1.2.
_OF_CLUSTER = (
    *("server", "certificate-authority", "certificate-authority-data", "insecure-skip-tls-verify", "tls-server-name"),
    *("disable-compression", "extensions", "api-version"),
)
_OF_USER = (
    *("token", "tokenFile", "client-certificate", "client-certificate-data", "client-key", "client-key-data"),
    *("extensions",),
)
_INSTEAD = {
    "exec": ", because a node's plugin cannot depend on a helper program; give a token or a client certificate",
    "auth-provider": ", because a node's plugin cannot depend on a helper program; give a token",
    "username": "; API servers take no passwords since Kubernetes 1.19; give a token or a client certificate",
    "password": "; API servers take no passwords since Kubernetes 1.19; give a token or a client certificate",
    "proxy-url": "; give a server that the node reaches without a proxy",
    **dict.fromkeys(
        ("as", "as-uid", "as-groups", "as-user-extra"), "; give the credentials of the account that genie is to be"
    ),
}


def _from_kubeconfig(given: Credentials) -> ApiServer:
    """The current context of a kubeconfig, in JSON or YAML. It need not name a server if `given` does.

    The source of each rule is the kubeconfig (v1) API of client-go: data fields win over file fields, and relative file
    names start at the kubeconfig's own folder. A field that genie does not support is refused by name: if it were
    ignored, genie would use another account or connection than the file describes.
    """
    path = given.kubeconfig
    document = Fields(_load(path, f"{given.source}: {given.setting}"), f"kubeconfig {path}")
    context = _named(document, "contexts", document.text("current-context"))
    cluster = _named(document, "clusters", context.text("cluster"))
    user_name = context.text("user")
    user = _named(document, "users", user_name) if user_name else Fields({}, "")
    for entry, known in ((cluster, _OF_CLUSTER), (user, _OF_USER)):
        for key, value in entry.data.items():
            if key not in known and value not in (None, False, "", [], {}):
                raise invalid(entry.where, f"{key} is not supported{_INSTEAD.get(key, '')}")
    ca, verify = _material(cluster, "certificate-authority", path), not cluster.boolean("insecure-skip-tls-verify")
    if ca and not verify:
        raise invalid(cluster.where, "insecure-skip-tls-verify: expected no certificate-authority with it")
    return ApiServer(
        url=cluster.text("server", required=not given.api_root),
        ca=ca,
        verify=verify,
        server_name=cluster.text("tls-server-name"),
        token=user.text("token").strip(),
        token_file=_beside(path, file) if (file := user.text("tokenFile")) else "",
        token_field=f"{user.where}: tokenFile",
        certificate=_material(user, "client-certificate", path),
        key=_material(user, "client-key", path),
    )


def _named(document: Fields, section: str, name: str) -> Fields:
    """The entry of a name in one of a kubeconfig's lists."""
    entries = document.objects(section)
    for entry in entries:
        if entry.data.get("name") == name:
            return entry.inner(section[:-1])
    names = ", ".join(repr(entry.data.get("name")) for entry in entries) or "none"
    raise invalid(document.where, f"{section}: expected an entry named {name!r}, found {names:.200}")


def _material(holder: Fields, key: str, path: str) -> str:
    """PEM text: in the kubeconfig itself, in base64, or in a file."""
    if data := holder.text(f"{key}-data"):
        import base64

        try:
            text = _pem_text(base64.b64decode("".join(data.split()), validate=True))
        except ValueError as error:
            raise invalid(holder.where, f"{key}-data: expected PEM text in base64: {error}") from error
        if not text.strip():
            raise invalid(holder.where, f"{key}-data: expected PEM text in base64, found nothing")
        return text
    file = holder.text(key)
    return _pem(_beside(path, file), f"{holder.where}: {key}") if file else ""


def _load(path: str, where: str) -> Mapping[str, Any]:
    """A kubeconfig's content. where: what names it, for messages."""
    text = _read(path, where)
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        try:
            import yaml
        except ImportError as error:
            raise invalid(
                f"kubeconfig {path}",
                "it is not JSON, and PyYAML is not here to read it as YAML: install PyYAML, or write it as JSON "
                "(kubectl config view --raw -o json)",
            ) from error
        try:
            document = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a wrong date
            # YAML's own text shows the line, which may be a token's, and errors are shown as Events
            mark = getattr(error, "problem_mark", None)
            at = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
            why = getattr(error, "problem", None) or getattr(error, "reason", None) or "a value that cannot be read"
            raise invalid(f"kubeconfig {path}", f"neither JSON nor YAML{at}: {why}") from error
    if not isinstance(document, dict):
        raise invalid(f"kubeconfig {path}", "expected an object with clusters, users and contexts")
    return document


def _beside(path: str, name: str) -> str:
    return os.path.join(os.path.dirname(path), name)


def _pem(path: str, where: str) -> str:
    """A file of PEM text. where: as for `_load`."""
    if not (text := _pem_text(_read_bytes(path, where))).strip():
        raise invalid(
            where, f"{path}: expected PEM text, found nothing"
        )  # for TLS, no authority means those of the system
    return text


def _pem_text(data: bytes) -> str:
    """Read PEM text. Its blocks are ASCII; the comments between them may have any encoding, and are ignored."""
    return data.decode("utf-8-sig", "replace")


def _read(path: str, where: str) -> str:
    try:
        return _read_bytes(path, where).decode()
    except UnicodeDecodeError as error:
        raise invalid(where, f"cannot read {path}: not text") from error


def _read_bytes(path: str, where: str) -> bytes:
    try:
        with opened(path) as file:
            content = file.read(FILE_MAX + 1)
    except OSError as error:
        raise invalid(where, f"cannot read {path}: {error.strerror}") from error
    if len(content) > FILE_MAX:
        raise invalid(where, f"cannot read {path}: it has more than {FILE_MAX} bytes")
    return content


class Client:
    """One persistent connection to an API server. Not thread-safe: make one for each thread.

    timeout: seconds for the whole of a request, from connecting to the last byte of the answer (a name that has to be
    resolved takes its own time); of an answer of any size, for each part of it.
    decode: makes a value of a JSON text, or raises ValueError.
    """

    def __init__(self, server: ApiServer, timeout: float = 10.0, decode: Callable[[bytes], Any] = json.loads) -> None:
        self.server, self.timeout, self._decode = server, timeout, decode
        self._deadline = 0.0
        self._connection: Any = None
        self._tls: Any = None
        self._prefix = ""

    def request(self, method: str, path: str, body: Any = None, content_type: str = "") -> tuple[int, Any]:
        """One request: returns the status and the decoded JSON body (None if it is not JSON).

        content_type: of the body; by default JSON's, or for a PATCH, a merge patch's.

        Raises CniError: 11 when the API server cannot be reached, breaks off, is not done in time, or answers with more
        than `ANSWER_MAX`.
        """
        import http.client

        self._deadline = time.monotonic() + self.timeout
        response = self._send(method, path, body, content_type)
        try:
            raw = response.read(ANSWER_MAX)
            if response.read(1):
                self.close()
                raise CniError(Code.TRY_AGAIN, f"{path}: the API server answers with more than {ANSWER_MAX} bytes")
            if response.length:
                raise http.client.IncompleteRead(raw, response.length)
        except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: the size of a chunk is negative
            self.close()
            raise self._away(error) from error
        try:
            return response.status, self._decode(raw)
        except (ValueError, RecursionError):
            return response.status, None

    def open(self, path: str, accept: str = JSON, *, within: float) -> tuple[int, Generator[bytes, None, None]]:
        """GET an answer of any size: the status, and the body in pieces as they come. To be read to its end, or the
        iterator closed.

        accept: the media types to ask for.
        within: seconds for the whole of it.

        Raises CniError: as `request`, also while the pieces are read.
        """
        self._deadline = time.monotonic() + within
        response = self._send("GET", path, None, accept=accept)
        return response.status, self._pieces(response)

    def _pieces(self, response: Any) -> Generator[bytes, None, None]:
        import http.client

        try:
            while piece := response.read1(PIECE):
                yield piece
            if response.length:
                raise http.client.IncompleteRead(b"", response.length)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.close()  # the response may count as closed, with a part of it unread
            raise self._away(error) from error
        finally:
            if not response.isclosed():  # the unread rest would block the next answer
                self.close()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _send(self, method: str, path: str, body: Any, content_type: str = "", accept: str = JSON) -> Any:
        import http.client

        headers = {"Accept": accept, "User-Agent": "genie"}
        payload = None if body is None else json.dumps(body).encode()
        if payload is not None:
            headers["Content-Type"] = content_type or ("application/merge-patch+json" if method == "PATCH" else JSON)
        fresh = self._connection is None
        try:
            if fresh:
                self._connection = self._connect()
            if token := self.server.bearer():
                headers["Authorization"] = f"Bearer {token}"
            try:
                self._connection.request(method, self._prefix + path, payload, headers)
            except ValueError as error:  # of http.client: a header that cannot be one
                self.close()
                raise invalid("API server", "the token has characters that no token has") from error
            return self._connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            if not fresh and not isinstance(error, TimeoutError):  # the server closed the kept connection meanwhile
                return self._send(method, path, body, content_type, accept)
            raise self._away(error) from error
        except ValueError as error:  # a label of its name is empty or too long
            what = f"{self.server.url}: expected the name of a host there, or in tls-server-name"
            raise invalid("API server", f"{what}: {error}") from error

    def _connect(self) -> Any:
        import http.client

        scheme, host, port, self._prefix = _parts_of(self.server.url)
        default = 80 if scheme == "http" else 443
        if scheme == "https" and self._tls is None:
            self._tls = _tls(self.server)
        connection = http.client.HTTPConnection(host, port or default, timeout=self._left())
        connection.default_port = default  # which the Host header leaves out
        connection.auto_open = 0  # after `Connection: close`, it would connect again by itself, without TLS
        connection.connect()
        if scheme == "https":  # tls-server-name: the certificate is for another name than the URL's
            connection.sock.settimeout(self._left())
            name = self.server.server_name or connection.host
            connection.sock = self._tls.wrap_socket(connection.sock, server_hostname=name)
        connection.sock = _Socket(connection.sock, self._left)
        return connection

    def _left(self) -> float:
        """Seconds for the next step of a request; raises TimeoutError when there are none."""
        if (left := self._deadline - time.monotonic()) <= 0:
            raise TimeoutError("timed out")
        return min(left, self.timeout)

    def _away(self, error: Exception) -> CniError:
        return CniError(
            Code.TRY_AGAIN,
            f"the API server at {self.server.url} cannot be reached: {_brief(str(error)) or type(error).__name__}",
        )


class _Socket:
    """A socket as http.client uses it. `socket.settimeout` limits one step, so a peer that sends a byte now and then
    would hold a request for hours; here each step has the time that is `left` of the whole.
    """

    def __init__(self, sock: Any, left: Callable[[], float]) -> None:
        self._sock, self._left = sock, left

    def sendall(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            self._sock.settimeout(self._left())
            rest = rest[self._sock.send(rest) :]

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Received(self._sock, self._left))

    def close(self) -> None:
        self._sock.close()


class _Received(io.RawIOBase):
    """The bytes from a socket, each step within the time `left`; open after the socket is closed, as its own file."""

    def __init__(self, sock: Any, left: Callable[[], float]) -> None:
        self._sock, self._left = sock, left
        self._file = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(self._left())
        count: int | None = self._file.readinto(buffer)
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def _parts_of(url: str) -> tuple[str, str, int | None, str]:
    """An API server's URL: scheme, host, port, and the path that all requests begin with (such as a proxy's that serves
    several clusters).

    `[10.96.0.1]` and `[kubernetes.example]` are accepted, too. RFC 3986 allows brackets only for IPv6, but Multus'
    installer wrote its server in brackets for years, and Go accepts that.
    """
    plain = url.strip()
    before, _, after = plain.partition("://[")
    host, end, rest = after.partition("]")
    if host and end and ":" not in host and rest[:1] in ("", ":", "/"):
        plain = f"{before}://{host}{rest}"
    try:
        parts = urlsplit(plain)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise invalid("API server", f"expected an http or https URL, found {url!r}")
    if parts.query or parts.fragment:
        raise invalid("API server", f"expected a URL without a query, found {url!r}")
    if parts.username is not None:
        raise invalid("API server", f"a user in the URL is not supported{_INSTEAD['username']}")
    return parts.scheme, parts.hostname.replace("%25", "%"), port, quote(parts.path.rstrip("/"), safe="/%")


def _tls(server: ApiServer) -> Any:
    import ssl

    # Mozilla's bundle has comments that are not ASCII, which Python refuses; OpenSSL reads nothing but the blocks
    authority = server.ca.encode("ascii", "ignore").decode()
    try:
        if server.ca and not authority:  # for `ssl`, nothing means the system's
            raise ValueError("it has no ASCII in it")
        context = ssl.create_default_context(cadata=authority or None)
    except (ssl.SSLError, ValueError) as error:
        raise invalid("API server", f"its certificate authority is not PEM: {error}") from error
    # Python 3.13 sets this flag, and refuses certificates that kubectl accepts ("Missing Authority Key Identifier")
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if not server.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if server.certificate:
        # load_cert_chain takes files only: one in memory never touches the disk with a key in it
        handle = os.memfd_create("client-certificate")
        try:
            os.write(handle, f"{server.certificate}\n{server.key}".encode())
            context.load_cert_chain(f"/proc/self/fd/{handle}", password="")  # never ask a terminal for one
        except (ssl.SSLError, ValueError) as error:
            raise invalid("API server", f"the client certificate or its key cannot be used: {error}") from error
        finally:
            os.close(handle)
    return context
