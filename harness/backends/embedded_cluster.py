"""The embedded cluster as scenarios see it: implements `harness.contract` by requests to the nodes' sockets."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kubernetes.client import ApiClient, Configuration

from harness import contract
from harness.contract import Ability, Facts, Inventory, Offer, ProbeError
from harness.embedded import isolation, linux, node_agent, socket_api
from harness.embedded.rest import Access
from harness.embedded.startup import socket_of

ABILITIES: frozenset[Ability[Any]] = frozenset(
    {
        contract.APART,
        contract.API_OUTAGE,
        contract.API_OUTAGE_OF_GENIE,
        contract.CNI_CALLS,
        contract.DEFINITIONS_AWAY,
        contract.END_SANDBOX,
        contract.GARBAGE_COLLECTION,
        contract.LIVING_LEFT_OUT,
        contract.NETWORK_RESTART,
        contract.NET_D,
        contract.POLICIES,
        contract.REBOOT,
        contract.SETTINGS,
        contract.STATIC_PODS,
        contract.TAMPERING,
    }
)


def save(facts: Facts, place: Path) -> None:
    """Write the facts to a file for all processes of the run."""
    offers = {name: asdict(offer) for name, offer in facts.offers.items()}
    (place / "facts.json").write_text(json.dumps({**vars(facts), "abilities": [], "offers": offers}))


def abilities() -> frozenset[Ability[Any]]:
    """What this machine can do."""
    return ABILITIES if node_agent.enforces_policies() else ABILITIES - {contract.POLICIES}


def _load(place: Path) -> Facts:
    data = json.loads((place / "facts.json").read_text())
    offers = {name: Offer.of(offer) for name, offer in data["offers"].items()}
    lists = {key: tuple(data[key]) for key in ("nodes", "notes")}
    return Facts(**{**data, **lists, "offers": offers, "abilities": abilities()})


@dataclass
class EmbeddedCluster:
    """See `harness.contract`. All state is in the run's directory, so every process of the run can make an instance."""

    place: Path
    facts: Facts = field(init=False)
    _client: ApiClient | None = None

    def __post_init__(self) -> None:
        self.facts = _load(self.place)

    def api(self) -> ApiClient:
        if self._client is None:
            access = Access.read(self.place / "access.json")
            configuration = Configuration()
            configuration.host = access.server
            configuration.proxy = None
            configuration.ssl_ca_cert = self._certificate(access)
            if access.token:
                configuration.api_key = {"authorization": f"Bearer {access.token}"}
            self._client = ApiClient(configuration)
        return self._client

    def _certificate(self, access: Access) -> str | None:
        path = self.place / "ca.crt"
        if access.ca and not path.exists():
            path.write_text(access.ca)
        return str(path) if access.ca else None

    def ask(self, namespace: str, pod: str, request: Mapping[str, Any]) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = self._of_pod(namespace, pod, "ask", request=dict(request))
        except (socket_api.Failed, OSError) as error:
            raise ProbeError(f"pod {namespace}/{pod}: {error}") from error
        return answer

    def inventory(self, node: str) -> Inventory:
        taken = self._of_node(node, "inventory")
        return Inventory(**{name: frozenset(items) for name, items in taken.items()})

    def binaries(self, node: str) -> dict[str, str]:
        return dict(self._of_node(node, "binaries"))

    def calls(self, namespace: str) -> list[dict[str, Any]]:
        return [line for node in self.facts.nodes for line in self._of_node(node, "calls", namespace=namespace)]

    def end_sandbox(self, namespace: str, pod: str) -> None:
        self._of_pod(namespace, pod, "end-sandbox")

    def cni_check(self, namespace: str, pod: str) -> str:
        return str(self._of_pod(namespace, pod, "check"))

    def cni_status(self, node: str, genie_conf: Mapping[str, Any], env: Mapping[str, str]) -> str:
        return str(self._of_node(node, "status", conf=dict(genie_conf), env=dict(env)))

    def lose_sandbox(self, namespace: str, pod: str) -> None:
        self._of_pod(namespace, pod, "lose-sandbox")

    def collect_garbage(self, node: str) -> None:
        self._of_node(node, "collect-garbage")

    @contextmanager
    def network_restart(self, network: str) -> Iterator[None]:
        for node in self.facts.nodes:
            self._of_node(node, "restart-daemon", network=network)
        yield

    def reboot(self, node: str) -> None:
        self._of_node(node, "reboot")

    def tamper(self, namespace: str, pod: str, interface: str, remove: str) -> None:
        self._of_pod(namespace, pod, "tamper", interface=interface, remove=remove)

    def static_pod(self, node: str, name: str, manifest: Mapping[str, Any] | None) -> None:
        self._of_node(node, "static-pod", file=name, manifest=manifest)

    def net_d(self, files: Mapping[str, Mapping[str, Any]]) -> AbstractContextManager[None]:
        return socket_api.hold(self._sockets(), "net-d", files=dict(files))

    def settings(self, genie_conf: Mapping[str, Any], namespace: str) -> AbstractContextManager[None]:
        return socket_api.hold(self._sockets(), "settings", conf=dict(genie_conf), namespace=namespace)

    def policies(self, namespace: str) -> AbstractContextManager[None]:
        return socket_api.hold(self._sockets(), "policies", namespace=namespace)

    def api_server_away(self, namespace: str) -> AbstractContextManager[None]:
        return socket_api.hold(self._sockets(), "away", namespace=namespace)

    def evidence(self, namespace: str, pod: str, into: Path) -> list[Path]:
        into.mkdir(parents=True, exist_ok=True)
        written = []
        for node in self.facts.nodes:
            for name, text in self._of_node(node, "evidence", namespace=namespace, pod=pod).items():
                if name != "node.txt" and text.startswith(("no plugin was called", "no pod ")):
                    continue  # the pod is on another node
                path = into / f"{pod}-{node}-{name}"
                path.write_text(text)
                written.append(path)
        return written

    def shell(self, namespace: str, pod: str) -> Sequence[str]:
        try:
            node, netns = self._of_pod(namespace, pod, "where")
        except (socket_api.Failed, OSError) as error:
            raise ProbeError(f"pod {namespace}/{pod}: {error}") from error
        number = (self.place / f"{node}.pid").read_text()
        prompt = f"PS1=[{pod} on {node}] # "
        on_node = ("nsenter", "--target", number, "--mount", "--net")
        return *on_node, "ip", "netns", "exec", Path(netns).name, "env", prompt, "sh"

    def close(self, keep: bool = False) -> None:
        if self._client is not None:
            self._client.close()  # type: ignore[no-untyped-call]
            self._client = None
        if keep:
            print(self._kept(isolation.keep()), file=sys.stderr)

    def _kept(self, keeper: int) -> str:
        place, node = self.place, self.facts.nodes[0]
        whole = "--all" if linux.is_real_root() else "--user --preserve-credentials --mount --net --pid"
        return (
            f"The cluster is kept as process {keeper}, for inspection; a later run makes a new one.\n"
            f"  inside:     nsenter --target {keeper} {whole} env KUBECONFIG={place}/kubeconfig sh\n"
            f"  its nodes:  from there, nsenter --target $(cat {place}/{node}.pid) --mount --net sh\n"
            f"  end it:     kill {keeper}"
        )

    def _sockets(self) -> dict[str, Path]:
        return {node: socket_of(self.place, node) for node in self.facts.nodes}

    def _of_node(self, node: str, do: str, **what: Any) -> Any:
        return socket_api.ask(socket_of(self.place, node), do, **what)

    def _of_pod(self, namespace: str, pod: str, do: str, **what: Any) -> Any:
        """Ask the node on which the pod is."""
        failures = []
        for node in self.facts.nodes:
            try:
                return self._of_node(node, do, namespace=namespace, pod=pod, **what)
            except socket_api.Failed as error:
                failures.append(str(error))
        raise socket_api.Failed(next((each for each in failures if not each.startswith("no pod ")), failures[0]))
