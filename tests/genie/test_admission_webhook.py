"""The admission webhook behind a real API server, with its manifest and its account's rights."""

from __future__ import annotations

import base64
import copy
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

import genie
from genie import kube
from genie.admission import Server, answered, main
from genie.certificate import SelfSigned, made
from genie.cni.errors import CniError
from genie.config import Credentials
from genie.kube import Client
from genie.node import explain
from genie.verbs.network_status import NETWORK_STATUS
from harness.download import FIXTURES
from tests.genie.test_admission_rules import KEY, definition, logical, namespace, owned, physical, pod
from tests.rigs.real_api import Cluster, create, post, started
from tests.rigs.selection import CONF

DEPLOY = Path(genie.__file__).parent / "deploy"
PORT = 8443
NAD = '{"cniVersion": "1.0.0", "name": "n", "type": "bridge"}'


def certificate(folder: Path) -> tuple[str, str]:
    """A certificate for 127.0.0.1 and its key; replaces those that are there."""
    if not shutil.which("openssl"):
        pytest.skip("there is no openssl for a certificate")
    cert, key = folder / "tls.crt", folder / "tls.key"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    names = ["-subj", "/CN=genie", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, *names, "-keyout", key, "-out", cert], check=True, capture_output=True)
    return str(cert), str(key)


class Hooked:
    """A cluster with the webhook."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        self.server: Server | None = None
        self.things = list(yaml.safe_load_all((DEPLOY / "webhook" / "webhook.yaml").read_text()))
        for thing in self.things:
            if thing["kind"] in ("ServiceAccount", "ClusterRole", "ClusterRoleBinding"):
                create(cluster, thing)
        (self.hooks,) = (thing for thing in self.things if thing["kind"] == "ValidatingWebhookConfiguration")
        path = "/api/v1/namespaces/kube-system/serviceaccounts/genie-admission/token"
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        status, answer = cluster.ask("POST", path, body)
        assert status == 201, answer
        kubeconfig = cluster.running.admin.kubeconfig()
        kubeconfig["users"][0]["user"] = {"token": answer["status"]["token"]}
        (folder / "kubeconfig").write_text(json.dumps(kubeconfig))
        conf = {"name": "genie", "type": "genie", "kubernetes": {"kubeconfig": str(folder / "kubeconfig")}}
        (folder / "genie.conf").write_text(json.dumps(conf))

    def serve(self) -> None:
        cert, key = certificate(self.folder)
        self.cluster.within.run(lambda: self._serve(cert, key))

    def _serve(self, cert: str, key: str) -> None:
        self.server = Server(("127.0.0.1", PORT), cert=cert, key=key, conf=str(self.folder / "genie.conf"))
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def register(self) -> None:
        hooks = copy.deepcopy(self.hooks)
        bundle = base64.b64encode((self.folder / "tls.crt").read_bytes()).decode()
        for hook in hooks["webhooks"]:
            hook["clientConfig"] = {"url": f"https://127.0.0.1:{PORT}/", "caBundle": bundle}
        create(self.cluster, hooks)

    def apply(self, thing: dict[str, Any], name: str = "") -> tuple[str, str]:
        """Apply an object for good: the refusal and the warnings."""
        path = self.cluster.collection(thing)
        status, answer = self.cluster.ask("PUT" if name else "POST", f"{path}/{name}" if name else path, thing)
        assert status in (200, 201, 422), answer
        return "" if status < 300 else str(answer["message"]), " ".join(self.cluster.warnings)

    def tried(self, thing: dict[str, Any]) -> tuple[str, str]:
        status, answer = self.cluster.ask("POST", f"{self.cluster.collection(thing)}?dryRun=All", thing)
        assert status in (201, 422), answer
        return "" if status == 201 else str(answer["message"]), " ".join(self.cluster.warnings)


def named(thing: dict[str, Any], name: str, namespace: str = "default") -> dict[str, Any]:
    return {**thing, "metadata": {**thing["metadata"], "name": name, "namespace": namespace}}


@pytest.fixture(scope="module")
def hooked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hooked]:
    with started(tmp_path_factory.mktemp("api")) as cluster:
        for path in sorted((DEPLOY / "crds").iterdir()) + sorted((FIXTURES / "crds").iterdir()):
            for thing in yaml.safe_load_all(path.read_text()):
                create(cluster, thing)
        found = Hooked(cluster, tmp_path_factory.mktemp("webhook"))
        for thing in (
            named(definition(NAD), "side"),
            named(physical("eth1", "10.40.0.0/16"), "phys"),
            named(logical(plugin=None, physicalNet="phys", sub_subnet="10.40.1.0/24"), "red"),
        ):
            post(cluster, cluster.collection(thing), thing)
        found.serve()
        found.register()
        refusing(found)
        yield found
        if found.server:
            found.server.shutdown()
            found.server.server_close()


def physical_part(subnet: str, **more: Any) -> dict[str, Any]:
    return named(logical(plugin=None, physicalNet="phys", sub_subnet=subnet, **more), "new")


REFUSED: list[tuple[dict[str, Any], str]] = [
    (definition('{"cniVersion": "1.0.0", "type": "bridge",}'), "NetworkAttachmentDefinition default/n: not valid JSON"),
    (definition('{"cniVersion": "1.0.0"}'), "NetworkAttachmentDefinition default/n: "),
    (pod(**{KEY: '[{"name": "side", "mac": 5}]'}), "mac"),
    (pod(**{KEY: '[{"name": "side"},]'}), "not valid JSON"),
    (pod(**{KEY: '[{"name": "side", "ips": ["10.1.1.1"]}]'}), "ips: no plugin of NetworkAttachmentDefinition"),
    (pod(**{KEY: "nowhere"}), "there is no NetworkAttachmentDefinition default/nowhere"),
    (pod(networks="nowhere"), "there is no Logicalnetwork default/nowhere"),
    (owned("Deployment", **{KEY: "[{]"}), "not valid JSON"),
    (physical_part("10.41.0.0/24"), "sub_subnet 10.41.0.0/24 is not within the physical network's 10.40.0.0/16"),
    (
        physical_part("10.40.0.0/23"),
        "10.40.0.0/23 overlaps 10.40.1.0/24 of Logicalnetwork default/red, also by macvlan",
    ),
    (named(logical(plugin=None, physicalNet="none"), "new"), "there is no Physicalnetwork default/none"),
    (definition('{"cniVersion": "1.0.0", "type": "multus"}'), "is Multus' own configuration"),
    (namespace("a,"), "item 2"),
]


@pytest.mark.parametrize(("thing", "complaint"), REFUSED)
def test_what_needs_other_objects_is_refused_and_explain_says_the_same(
    hooked: Hooked, thing: dict[str, Any], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refusal, _ = hooked.tried(thing)
    assert "genie: " in refusal and complaint in refusal
    (tmp_path / "thing.yaml").write_text(yaml.safe_dump(thing))
    arguments = ["-f", str(tmp_path / "thing.yaml"), "--kubeconfig", str(hooked.folder / "kubeconfig")]
    assert hooked.cluster.within.run(lambda: explain.main(arguments)) == 1
    assert refusal.partition("genie: ")[2].strip() in capsys.readouterr().out


@pytest.mark.parametrize(
    "thing",
    [
        definition(NAD),
        pod(**{KEY: "side"}),
        pod(networks="red"),
        pod(cni="calico, whatever@net1"),
        pod(),
        owned("CronJob", **{KEY: "side"}),
        physical_part("10.40.2.0/24"),
        named(logical(sub_subnet="10.40.1.0/24"), "new"),
    ],
)
def test_what_an_add_would_grant_is_accepted(hooked: Hooked, thing: dict[str, Any], tmp_path: Path) -> None:
    assert hooked.tried(thing) == ("", "")
    (tmp_path / "thing.yaml").write_text(yaml.safe_dump(thing))
    arguments = ["-f", str(tmp_path / "thing.yaml"), "--kubeconfig", str(hooked.folder / "kubeconfig")]
    assert hooked.cluster.within.run(lambda: explain.main(arguments)) == 0


@pytest.mark.parametrize("kind", ["Deployment", "CronJob", "DaemonSet"])
def test_a_template_may_come_before_its_network(hooked: Hooked, kind: str) -> None:
    refusal, warning = hooked.tried(owned(kind, **{KEY: "later"}))
    assert not refusal and "there is no NetworkAttachmentDefinition default/later: until that changes" in warning


def test_a_namespace_may_come_before_its_default_network(hooked: Hooked) -> None:
    refusal, warning = hooked.tried(namespace("later/side"))
    assert not refusal and "there is no NetworkAttachmentDefinition later/side: until that changes" in warning
    assert hooked.tried(namespace("default/side, calico")) == ("", "")


def test_a_physical_network_keeps_its_logical_ones_within(hooked: Hooked) -> None:
    path = "/apis/alpha.network.k8s.io/v1/namespaces/default/physicalnetworks/phys"
    for subnet, complaint in (("10.40.2.0/24", "10.40.1.0/24 is not within"), ("10.40.0.0/15", "")):
        spec = {"sharedStatus": {"subnet": subnet}}
        status, answer = hooked.cluster.ask("PATCH", f"{path}?dryRun=All", {"spec": spec})
        assert (status == 422) == bool(complaint) and complaint in str(answer.get("message", ""))


def test_the_deletion_of_a_definition_in_use_is_warned_about(hooked: Hooked) -> None:
    user = named(pod(**{KEY: "side", NETWORK_STATUS: json.dumps([{"name": "default/side"}])}), "user")
    post(hooked.cluster, hooked.cluster.collection(user), user)
    path = hooked.cluster.collection(definition(NAD))
    spare = named(definition(NAD), "spare")
    post(hooked.cluster, path, spare)
    for name, warned in (("side", True), ("spare", False)):
        status, answer = hooked.cluster.ask("DELETE", f"{path}/{name}?dryRun=All")
        assert status == 200, answer
        warning = " ".join(hooked.cluster.warnings)
        assert ("default/side is still used by pods default/user: a new sandbox" in warning) is warned, warning
    physicals = "/apis/alpha.network.k8s.io/v1/namespaces/default/physicalnetworks/phys"
    assert hooked.cluster.ask("DELETE", f"{physicals}?dryRun=All")[0] == 200
    assert "still used by Logicalnetworks default/red" in " ".join(hooked.cluster.warnings)


def test_a_renewed_certificate_is_served_without_a_restart(hooked: Hooked) -> None:
    import ssl

    def fetched() -> str:
        return str(hooked.cluster.within.run(lambda: ssl.get_server_certificate(("127.0.0.1", PORT))))

    before = fetched()
    kept = {name: (hooked.folder / name).read_bytes() for name in ("tls.crt", "tls.key")}
    certificate(hooked.folder)
    assert fetched() != before
    for name, content in kept.items():
        (hooked.folder / name).write_bytes(content)
    assert fetched() == before


def test_without_the_webhook_everything_is_accepted(hooked: Hooked) -> None:
    assert hooked.server
    hooked.server.shutdown()
    hooked.server.server_close()
    try:
        assert hooked.tried(pod(**{KEY: "nowhere"}))[0] == ""
    finally:
        hooked.cluster.within.run(lambda: hooked._serve(str(hooked.folder / "tls.crt"), str(hooked.folder / "tls.key")))


@pytest.mark.parametrize("review", [None, [], {}, {"request": 5}, {"request": {}}, {"request": {"uid": 5}}])
def test_what_is_no_review(review: Any) -> None:
    with pytest.raises(CniError, match="AdmissionReview: expected a request"):
        answered(review, CONF)


@pytest.mark.parametrize("thing", [None, [], {"metadata": 5}, {"kind": "Pod", "spec": {"containers": [5]}}])
def test_an_object_that_cannot_be_read_is_left_to_the_api_server(thing: Any) -> None:
    response = answered({"request": {"uid": "u", "operation": "CREATE", "object": thing}}, CONF)["response"]
    assert response["allowed"] and "could not check this" in response["warnings"][0]


# --- its own certificate ------------------------------------------------------------------------------------------

SERVICE = "kube-system/genie-admission"


class Replica:
    """A replica of the webhook that makes its own certificate; it serves on an address of its own."""

    def __init__(self, hooked: Hooked, folder: Path) -> None:
        folder.mkdir()
        client = Client(kube.server(Credentials(kubeconfig=str(hooked.folder / "kubeconfig"))))
        self.hooked, self.own = hooked, SelfSigned(client, SERVICE, str(folder / "tls.pem"), pauses=(0.2, 0.2))

    def turn(self, **renewed: float) -> bytes:
        """One look; returns what it serves by now."""
        self.hooked.cluster.within.run(lambda: self.own.turn(**renewed))
        return self.own.served

    def serve(self, address: str) -> Server:
        path, conf = self.own.path, str(self.hooked.folder / "genie.conf")
        server = Server((address, 443), cert=path, key=path, conf=conf)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return server


@pytest.fixture
def address(hooked: Hooked) -> Iterator[str]:
    """The address of the webhook's Service, with the manifest's objects in place of those for a foreign certificate."""
    manifest = (DEPLOY / "webhook-self-signed" / "certificate.yaml").read_text()
    made = [thing for thing in hooked.things if thing["kind"] == "Service"] + list(yaml.safe_load_all(manifest))
    for thing in made:
        post(hooked.cluster, hooked.cluster.collection(thing), thing)
    hooks = f"{hooked.cluster.collection(hooked.hooks)}/genie-admission"
    status, before = hooked.cluster.ask("GET", hooks)
    assert status == 200
    hooked.cluster.ask("DELETE", hooks)
    created = copy.deepcopy(hooked.hooks)
    for hook in created["webhooks"]:
        hook["clientConfig"] = {"service": {"namespace": "kube-system", "name": "genie-admission"}}
    create(hooked.cluster, created)
    status, service = hooked.cluster.ask("GET", f"{hooked.cluster.collection(made[0])}/genie-admission")
    hooked.cluster.within.ip(f"addr add {service['spec']['clusterIP']}/32 dev lo")
    yield service["spec"]["clusterIP"]
    hooked.cluster.within.ip(f"addr del {service['spec']['clusterIP']}/32 dev lo")
    for thing in made:
        hooked.cluster.ask("DELETE", f"{hooked.cluster.collection(thing)}/{thing['metadata']['name']}")
    hooked.cluster.ask("DELETE", hooks)
    create(hooked.cluster, {**before, "metadata": {"name": "genie-admission"}})


def refusing(hooked: Hooked) -> None:
    """Wait until the API server refuses what the webhook refuses."""
    deadline = time.monotonic() + 30
    while not hooked.tried(definition("{]}"))[0]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_rotation_loses_no_review(hooked: Hooked, address: str, tmp_path: Path) -> None:
    one, two = (Replica(hooked, tmp_path / name) for name in ("one", "two"))
    first = one.turn()
    assert two.turn() == first, "replicas share a certificate"
    server = hooked.cluster.within.run(lambda: one.serve(address))
    try:
        refusing(hooked)
        accepted, tried, stop = 0, 0, threading.Event()

        def apply_wrong_ones() -> None:
            nonlocal accepted, tried
            while not stop.is_set():
                accepted, tried = accepted + (not hooked.tried(definition("{]}"))[0]), tried + 1

        thread = threading.Thread(target=apply_wrong_ones)
        thread.start()
        second = two.turn(renewed=1000 * 86400)
        assert one.own.served == first != second, "one serves the old one still"
        for turn in range(2, 5):
            assert one.turn() == second, turn
        third = one.turn(renewed=1000 * 86400)
        assert two.turn() == third != second
        stop.set()
        thread.join()
        assert (accepted, tried > 10) == (0, True)
    finally:
        server.shutdown()
        server.server_close()


def test_replicas_that_start_together_share_a_certificate(
    hooked: Hooked, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    barrier = threading.Barrier(2, timeout=30)

    def together(name: str) -> tuple[bytes, bytes]:
        barrier.wait()  # both have seen the empty Secret
        return made(name)

    monkeypatch.setattr("genie.certificate.made", together)
    replicas = [Replica(hooked, tmp_path / name) for name in ("one", "two")]
    with ThreadPoolExecutor() as pool:
        one, two = pool.map(Replica.turn, replicas)
    assert one == two


def test_a_lost_bundle_is_repaired_and_a_longer_one_kept(hooked: Hooked, address: str, tmp_path: Path) -> None:
    replica = Replica(hooked, tmp_path / "one")
    hooks = f"{hooked.cluster.collection(hooked.hooks)}/genie-admission"

    def bundles() -> set[bytes]:
        found = hooked.cluster.ask("GET", hooks)[1]["webhooks"]
        return {base64.b64decode(hook["clientConfig"].get("caBundle", "")) for hook in found}

    cert = replica.turn()
    assert bundles() == {cert}
    emptied = copy.deepcopy(hooked.hooks) | {"metadata": hooked.cluster.ask("GET", hooks)[1]["metadata"]}
    assert hooked.cluster.ask("PUT", hooks, emptied)[0] == 200 and bundles() == {b""}
    replica.turn()
    assert bundles() == {cert}
    ahead = made("another.replica.svc")[0] + cert
    for hook in emptied["webhooks"]:
        hook["clientConfig"]["caBundle"] = base64.b64encode(ahead).decode()
    emptied["metadata"] = hooked.cluster.ask("GET", hooks)[1]["metadata"]
    assert hooked.cluster.ask("PUT", hooks, emptied)[0] == 200
    replica.turn()
    assert bundles() == {ahead}


def test_an_emptied_secret_or_bundle_takes_the_trust_from_no_replica(
    hooked: Hooked, address: str, tmp_path: Path
) -> None:
    one, two = (Replica(hooked, tmp_path / name) for name in ("one", "two"))
    first = one.turn()
    secret = "/api/v1/namespaces/kube-system/secrets/genie-admission-self-signed"
    hooks = f"{hooked.cluster.collection(hooked.hooks)}/genie-admission"

    def bundle() -> bytes:
        webhooks = hooked.cluster.ask("GET", hooks)[1]["webhooks"]
        return base64.b64decode(webhooks[0]["clientConfig"].get("caBundle", ""))

    def empty(path: str) -> None:
        now = hooked.cluster.ask("GET", path)[1] | {"data": None}
        for hook in now.get("webhooks", ()):
            hook["clientConfig"].pop("caBundle")
        assert hooked.cluster.ask("PUT", path, now)[0] == 200

    empty(secret)
    second = two.turn()
    assert second != first and bundle() == second + first, "one still serves the first"
    empty(hooks)
    assert one.own.served == first
    hooked.cluster.within.run(lambda: one.own._trust(one.own._held(0)))
    assert bundle() == second + first


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/v1/namespaces/kube-system/secrets"),
        ("GET", "/api/v1/namespaces/kube-system/secrets/another"),
        ("POST", "/api/v1/namespaces/kube-system/secrets"),
        ("DELETE", "/api/v1/namespaces/kube-system/secrets/genie-admission-self-signed"),
        ("GET", "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/another"),
        ("POST", "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"),
    ],
)
def test_its_account_may_do_no_more(hooked: Hooked, address: str, method: str, path: str) -> None:
    account = "system:serviceaccount:kube-system:genie-admission"
    assert hooked.cluster.ask(method, path, {} if method == "POST" else None, account=account)[0] == 403


def test_the_command_serves_once_it_has_a_certificate(
    hooked: Hooked, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[Server] = []
    monkeypatch.setattr("genie.admission.SelfSigned", partial(SelfSigned, pauses=(0, 0)))
    monkeypatch.setattr(Server, "serve_forever", lambda server: served.extend([server]))
    arguments = ["--self-signed", SERVICE, "--listen", f"{address}:443", "--conf", str(hooked.folder / "genie.conf")]
    assert hooked.cluster.within.run(lambda: main(arguments)) == 0
    served[0].server_close()
    assert served[0].server_address == (address, 443)


@pytest.mark.parametrize("arguments", [[], ["--cert", "c"], ["--cert", "c", "--key", "k", "--self-signed", "n/s"]])
def test_the_command_needs_one_certificate(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert "expected --cert with --key, or --self-signed" in capsys.readouterr().err


def test_the_component_without_cert_manager(tmp_path: Path) -> None:
    kubectl = shutil.which("kubectl", path=f"{os.environ.get('KUBEBUILDER_ASSETS', '')}:{os.environ['PATH']}")
    if not kubectl:
        pytest.skip("there is no kubectl to build a kustomization with")
    base = os.path.relpath(DEPLOY, tmp_path)
    whole = {"resources": [base], "components": [f"{base}/webhook-self-signed"]}
    (tmp_path / "kustomization.yaml").write_text(json.dumps(whole))
    built = subprocess.run([kubectl, "kustomize", tmp_path], check=True, capture_output=True, text=True).stdout
    assert "cert-manager" not in built
    things = {(thing["kind"], thing["metadata"]["name"]): thing for thing in yaml.safe_load_all(built)}
    pod = things["Deployment", "genie-admission"]["spec"]["template"]["spec"]
    assert f"--self-signed={SERVICE}" in pod["containers"][0]["args"]
    assert [one["mountPath"] for one in pod["containers"][0]["volumeMounts"]] == ["/tmp", "/etc/genie"]
    assert pod["volumes"][0] == {"name": "certificate", "emptyDir": {"medium": "Memory"}}
    assert {("Secret", "genie-admission-self-signed"), ("Role", "genie-admission-certificate")} <= things.keys()
