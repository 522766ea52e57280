"""Requests to a real API server: all kinds of credentials and answers."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from genie import config, kube
from genie.cni.errors import CniError
from genie.cni.execute import run_sync
from genie.config import Conf, Credentials
from genie.kube import ApiServer, Client, DirectKube, MirrorMissingError, Pod, RefusedError
from tests.rigs.api import POD, WEB, Api, kubeconfig, serve
from tests.rigs.selection import JSON


@pytest.fixture
def client(api: Api) -> Client:
    return Client(ApiServer(url=api.url), timeout=5)


# --- pods and network objects -----------------------------------------------------------------------------------


def test_a_pod(client: Client) -> None:
    assert kube.read_pod(client, "blue", "web", "u-1") == Pod(
        namespace="blue", name="web", uid="u-1", annotations={"cni": "calico"}
    )
    assert kube.read_pod(client, "blue", "web", "").uid == "u-1"


def test_a_pod_of_another_uid_is_not_this_pod(client: Client) -> None:
    with pytest.raises(CniError, match="one of UID u-1, the runtime asks for UID u-2: the pod was deleted") as caught:
        kube.read_pod(client, "blue", "web", "u-2")
    assert caught.value.code == 3


def mirror(api: Api, uid: str, **annotations: str) -> None:
    notes = {kube.HASH: uid, kube.MIRROR: uid, "kubernetes.io/config.source": "file", **annotations}
    api.answers[POD] = (200, {"metadata": {"namespace": "blue", "name": "web", "uid": "u-9", "annotations": notes}})


def test_a_mirror_pod_is_known_by_its_static_pods_uid(api: Api, client: Client) -> None:
    mirror(api, "abcdef")
    assert kube.read_pod(client, "blue", "web", "abcdef").uid == "u-9"


def test_a_mirror_of_another_version_of_the_static_pod_is_one_to_try_again(api: Api, client: Client) -> None:
    """The kubelet is about to replace it."""
    mirror(api, "abcdef")
    with pytest.raises(CniError, match="is the mirror of static pod abcdef, not yet the mirror of fedcba") as caught:
        kube.read_pod(client, "blue", "web", "fedcba")
    assert caught.value.code == 11


def test_a_mirror_pod_that_was_replaced_is_gone(api: Api, client: Client) -> None:
    """So that genie stops its attempts to annotate it: this uses the mirror's UID."""
    mirror(api, "abcdef")
    with pytest.raises(CniError, match="the pod was deleted and made again") as caught:
        kube.read_pod(client, "blue", "web", "5c1b6d0e-6f0c-4f5e-9d36-2f8f7c0a1b2c")
    assert caught.value.code == 3


def test_a_pod_in_the_place_of_a_mirror_is_not_it(api: Api, client: Client) -> None:
    api.answers[POD] = (200, {"metadata": {"namespace": "blue", "name": "web", "uid": "u-9"}})
    with pytest.raises(CniError, match="is a pod of UID u-9, not yet the mirror of abcdef") as caught:
        kube.read_pod(client, "blue", "web", "abcdef")
    assert caught.value.code == 11


UIDS = st.sampled_from(["", "abcdef", "fedcba", "u-1", "u-2"])


@given(
    asked=UIDS,
    uid=UIDS,
    notes=st.dictionaries(st.sampled_from([kube.HASH, kube.MIRROR, "kubernetes.io/config.source"]), UIDS),
)
def test_a_pod_is_recognized_by_its_uids(asked: str, uid: str, notes: dict[str, str]) -> None:
    """By its UID; a mirror also by its static pod's. A mirror has config.mirror; config.hash is not enough."""
    pod = Pod(namespace="blue", name="web", uid=uid, annotations=notes)
    mirrored = {notes[kube.MIRROR], notes.get(kube.HASH, "")} if kube.MIRROR in notes else set()
    assert pod.is_it(asked) == (asked in ("", uid) or asked in mirrored)


def test_a_missing_pod_is_an_unknown_container(client: Client) -> None:
    with pytest.raises(CniError, match="pod blue/gone: no such pod") as caught:
        kube.read_pod(client, "blue", "gone", "1-2-3")
    assert caught.value.code == 3


def test_a_static_pod_before_its_mirror_is_one_to_try_again(client: Client) -> None:
    with pytest.raises(CniError, match="its mirror pod is not on the API server yet") as caught:
        kube.read_pod(client, "blue", "gone", "5f3e6a")
    assert caught.value.code == 11


@pytest.mark.parametrize(
    ("status", "code", "complaint"),
    [
        (401, 7, "answers 401 because; genie's credentials are not accepted"),
        (403, 7, "answers 403 because; genie's account lacks the right"),
        (429, 11, "answers 429 because"),
        (500, 11, "answers 500 because"),
        (503, 11, "answers 503 because"),
    ],
)
def test_other_answers_of_the_api_server_are_errors_with_a_reason(
    api: Api, client: Client, status: int, code: int, complaint: str
) -> None:
    api.answers[POD] = (status, {"kind": "Status", "message": "because"})
    with pytest.raises(CniError) as caught:
        kube.read_pod(client, "blue", "web", "")
    assert f"cannot read pod blue/web: the API server {complaint}" in str(caught.value)
    assert caught.value.code == code


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b"\xff", b"[" * 100_000, b"{}", b'{"message": "log in first"}', b'{"metadata": null}'],
)
def test_an_answer_that_is_no_object(api: Api, client: Client, body: bytes) -> None:
    api.answers[POD] = (200, body)
    with pytest.raises(CniError, match="answers 200") as caught:
        kube.read_pod(client, "blue", "web", "")
    assert caught.value.code == 11


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((403, {"message": "x" * 5000}), f"answers 403 {'x' * 499}…; genie's account"),
        ((503, {"message": "a\nb\0c"}), "answers 503 a b c"),
        ((500, {"message": {"a": 1}}), "answers 500"),
        ((307, {"message": ""}), "answers 307; genie follows no redirect: name the API server itself"),
        ((404, b"<html>no backend</html>"), "404, but not in the API server's form"),
    ],
)
def test_an_error_of_the_network_is_one_line_and_not_a_long_one(
    api: Api, client: Client, answer: tuple[int, Any], reason: str
) -> None:
    api.answers[POD] = answer
    with pytest.raises(CniError) as caught:
        kube.read_pod(client, "blue", "web", "u-1")
    assert reason in caught.value.msg and caught.value.code in (7, 11)
    assert "\n" not in caught.value.msg and len(caught.value.msg) < 700


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n{}",
        b"HTTP/1.1 1000 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70000 + b"\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 150 + b"\r\n{}",
        b"no HTTP at all, " * 4000,
        b"\r\n\r\n",
        b"",
    ],
    ids=range(11),
)
def test_an_answer_that_is_no_http_is_an_error_in_one_line(answer: bytes) -> None:
    def serving(server: socket.socket) -> None:
        for _ in range(2):
            with contextlib.suppress(OSError), server.accept()[0] as connection:
                connection.settimeout(10)
                connection.recv(65536)
                connection.sendall(answer)
                connection.shutdown(socket.SHUT_WR)
                connection.recv(1)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serving, args=(server,))
        thread.start()
        client = Client(ApiServer(url=f"http://127.0.0.1:{server.getsockname()[1]}"), timeout=5)
        for ask in (
            lambda: kube.read_pod(client, "blue", "web", ""),
            lambda: b"".join(client.open(POD, within=5)[1]),
        ):
            with pytest.raises(CniError, match="cannot be reached: ") as caught:
                ask()
            assert caught.value.code == 11
            assert "\n" not in caught.value.msg and len(caught.value.msg) < 700
            assert client._connection is None, "the rest of it would be the answer to the next request"
        thread.join()


def test_names_stay_names(api: Api, client: Client) -> None:
    for name in ("../../secrets", "a/b?c#d", "\udcff"):
        with pytest.raises(CniError):
            kube.read_pod(client, "blue", name, "")
    assert [path for _, path, _, _ in api.requests] == [
        "/api/v1/namespaces/blue/pods/..%2F..%2Fsecrets",
        "/api/v1/namespaces/blue/pods/a%2Fb%3Fc%23d",
        "/api/v1/namespaces/blue/pods/%FF",
    ]


@pytest.mark.parametrize("kind", kube.NETWORK_OBJECTS)
def test_network_objects_are_read(api: Api, client: Client, kind: str) -> None:
    group, resource = kube.NETWORK_OBJECTS[kind]
    there = {"metadata": {"name": "red"}, "spec": {"x": 1}}
    api.answers[f"/apis/{group}/namespaces/blue/{resource}/red"] = (200, there)
    assert kube.read_network(client, kind, "blue", "red") == there
    assert kube.read_network(client, kind, "blue", "green") is None


def test_direct_mode_asks_for_a_namespaces_default_only_if_it_should(api: Api) -> None:
    note = {"genie.io/default-networks": "calico"}
    api.answers["/api/v1/namespaces/blue"] = (200, {"metadata": {"annotations": note}})
    conf = Conf(name="k8s", cni_version="1.0.0", credentials=Credentials(api_root=api.url))
    for on, found in (
        (None, None),
        (False, None),
        (True, kube.Default(kind="Namespace", name="blue", networks="calico")),
    ):
        direct = kube.DirectKube(replace(conf, namespace_defaults=on))
        assert run_sync(direct.defaults("blue")) == found
        assert len(api.requests) == bool(on)
    assert run_sync(direct.defaults("green")) is None


def test_annotations_are_one_patch_of_this_very_pod(api: Api, client: Client) -> None:
    kube.patch_annotations(client, Pod(namespace="blue", name="web", uid="u-1"), {"a": "b"})
    ((method, path, headers, body),) = api.requests
    assert (method, path, headers["Content-Type"]) == ("PATCH", POD, "application/merge-patch+json")
    assert body == {"metadata": {"annotations": {"a": "b"}, "uid": "u-1"}}


NOTES = {"status": "long " * 10, "cni": "blue"}


def shorter(notes: Mapping[str, str]) -> Iterator[Mapping[str, str | None]]:
    yield {**notes, "status": "short"}
    yield {**notes, "status": None}


def patches(api: Api) -> list[Any]:
    return [body["metadata"]["annotations"] for method, _, _, body in api.requests if method == "PATCH"]


def answering(api: Api, *answers: int, pod: tuple[int, Any] = (200, WEB)) -> None:
    """An API server that answers a patch with these, in order, and a GET with the pod."""
    left = list(answers)

    def answer() -> tuple[int, Any]:
        return (left.pop(0), {"message": "Too long", "metadata": {}}) if api.requests[-1][0] == "PATCH" else pod

    api.answers[POD] = answer


def write(client: Client) -> str:
    return kube.write_annotations(client, Pod(namespace="blue", name="web", uid="u-1"), NOTES, shorter)


@pytest.mark.parametrize("status", [404, 409, 422])
@pytest.mark.parametrize("now", [(404, {}), (200, {"metadata": {**WEB["metadata"], "uid": "u-2"}})])
def test_annotations_of_a_pod_that_is_gone_are_nobodys(
    api: Api, client: Client, status: int, now: tuple[int, Any]
) -> None:
    answering(api, status, pod=now)
    assert write(client) == "" and patches(api) == [NOTES]


@pytest.mark.parametrize("status", [413, 422])
@pytest.mark.parametrize("long", [1, 2])
def test_annotations_that_do_not_fit_are_shortened(api: Api, client: Client, status: int, long: int) -> None:
    answering(api, *[status] * long, 200)
    assert write(client) == f"cannot annotate pod blue/web: the API server answers {status} Too long"
    assert patches(api) == [NOTES, *shorter(NOTES)][: long + 1]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 410, 415, 429, 500, 503])
def test_annotations_that_are_refused_for_another_reason_are_not_shortened(
    api: Api, client: Client, status: int
) -> None:
    answering(api, status)
    with pytest.raises(RefusedError, match=f"cannot annotate pod blue/web: the API server answers {status}") as caught:
        write(client)
    assert len(patches(api)) == 1
    assert caught.value.passing == (status in (401, 403, 409, 429, 500, 503))


@pytest.mark.parametrize("status", [413, 422])
def test_annotations_of_which_nothing_fits_are_refused(api: Api, client: Client, status: int) -> None:
    answering(api, *[status] * 3)
    with pytest.raises(RefusedError, match=f"{status} Too long") as caught:
        write(client)
    assert len(patches(api)) == 3 and not caught.value.passing


def test_annotations_that_are_too_large_for_etcd_are_shortened(api: Api, client: Client) -> None:
    left = [(500, {"message": "etcdserver: request is too large"}), (200, WEB)]
    api.answers[POD] = lambda: left.pop(0)
    assert "request is too large" in write(client) and len(patches(api)) == 2


STATIC = Pod(namespace="blue", name="web", uid="abcdef", annotations={"kubernetes.io/config.source": "file"})


def test_the_status_of_a_static_pod_goes_to_its_mirror(api: Api, client: Client) -> None:
    mirror(api, "abcdef")
    assert kube.write_annotations(client, STATIC, NOTES, shorter) == ""
    assert api.requests[-1][3] == {"metadata": {"annotations": NOTES, "uid": "u-9"}}


@pytest.mark.parametrize("there", [(404, {}), (200, WEB)], ids=["no mirror", "another pod"])
def test_a_static_pod_without_its_mirror_is_written_to_later(api: Api, client: Client, there: tuple[int, Any]) -> None:
    api.answers[POD] = there
    with pytest.raises(MirrorMissingError, match="static pod blue/web: its mirror pod is not on the API server yet"):
        kube.write_annotations(client, STATIC, NOTES, shorter)
    mirror(api, "an-older-version")
    with pytest.raises(MirrorMissingError):
        kube.write_annotations(client, STATIC, NOTES, shorter)
    assert not patches(api)


def test_direct_mode_asks_for_no_pod_whose_annotations_the_runtime_hands_over(api: Api) -> None:
    given = {"cni": "blue"}
    expected = Pod(namespace="blue", name="web", uid="u-1", annotations=given)
    assert run_sync(direct(api).pod("blue", "web", "u-1", given)) == expected and api.requests == []
    assert run_sync(direct(api).pod("blue", "web", "", given)).annotations == WEB["metadata"]["annotations"]


# --- connections ------------------------------------------------------------------------------------------------


def test_one_connection_is_kept(api: Api, client: Client) -> None:
    for _ in range(3):
        kube.read_pod(client, "blue", "web", "")
    assert (api.connections, len(api.requests)) == (1, 3)


def test_a_kept_connection_that_the_server_closed_is_made_anew(api: Api, client: Client) -> None:
    api.hang_up = True
    for _ in range(3):
        kube.read_pod(client, "blue", "web", "")
    assert (api.connections, len(api.requests)) == (3, 3)


def test_a_server_that_is_not_there() -> None:
    with pytest.raises(CniError, match="the API server at http://127.0.0.1:1 cannot be reached: .*refused") as caught:
        kube.read_pod(Client(ApiServer(url="http://127.0.0.1:1"), timeout=1), "blue", "web", "")
    assert caught.value.code == 11


@pytest.mark.parametrize(
    ("server", "named"),
    [
        (ApiServer(url="http://a..b:6443"), "http://a..b:6443: expected the name of a host"),
        (ApiServer(url=f"http://{'long' * 16}.example"), ".example: expected the name of a host"),
    ],
)
def test_what_can_be_no_hosts_name_is_an_error_that_names_it(server: ApiServer, named: str) -> None:
    with pytest.raises(CniError) as caught:
        kube.read_pod(Client(replace(server, token="fine"), timeout=1), "blue", "web", "")
    assert named in caught.value.msg and caught.value.code == 7


@pytest.mark.parametrize("kept", [False, True])
def test_a_slow_server_is_away_after_the_time_limit(api: Api, kept: bool) -> None:
    client = Client(ApiServer(url=api.url), timeout=0.5)
    if kept:
        kube.read_pod(client, "blue", "web", "")
    woken, asked = threading.Event(), []

    def slow() -> tuple[int, Any]:
        asked.append(POD)
        woken.wait(3)
        return 200, WEB

    api.answers[POD] = slow
    with pytest.raises(CniError, match="cannot be reached: timed out") as caught:
        kube.read_pod(client, "blue", "web", "")
    woken.set()
    assert len(asked) == 1, "it is not asked a second time"
    assert caught.value.code == 11


def test_an_answer_that_breaks_off() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"metadata"')

        thread = threading.Thread(target=answer)
        thread.start()
        client = Client(ApiServer(url=f"http://127.0.0.1:{server.getsockname()[1]}"), timeout=5)
        with pytest.raises(CniError, match="cannot be reached: .*IncompleteRead") as caught:
            kube.read_pod(client, "blue", "web", "")
        thread.join()
    assert caught.value.code == 11


TRICKLES = [b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"HTTP/1.1 200 OK\r\nX-Slow: ", b""]


@pytest.mark.parametrize("beginning", TRICKLES, ids=["body", "headers", "status line"])
@pytest.mark.parametrize("streamed", [False, True], ids=["request", "open"])
def test_an_answer_that_trickles_has_no_more_time_than_another(beginning: bytes, streamed: bool) -> None:
    """A regression: single bytes held the agent's threads for minutes, because each byte restarted the time limit."""
    ended = threading.Event()

    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(65536)
                connection.sendall(beginning)
                while not ended.wait(0.05):
                    connection.sendall(b"1")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        giving_up = threading.Timer(20, ended.set)
        giving_up.start()
        with pytest.raises(CniError, match="cannot be reached: timed out") as caught:
            if streamed:
                _, pieces = Client(ApiServer(url=url), timeout=5).open("/", within=0.5)
                list(pieces)
            else:
                kube.read_pod(Client(ApiServer(url=url), timeout=0.5), "blue", "web", "")
        assert not ended.is_set()
        ended.set()
        giving_up.cancel()
        thread.join(20)
    assert caught.value.code == 11


def test_a_server_that_takes_a_request_in_small_parts_has_no_more_time_than_another() -> None:
    ours, theirs = socket.socketpair()
    steps: list[int] = []

    def left() -> float:
        if len(steps) == 3:
            raise TimeoutError("timed out")
        if steps:
            steps.append(len(theirs.recv(65536)))
        else:
            steps.append(0)
        return 5

    with ours, theirs, pytest.raises(TimeoutError):
        kube._Socket(ours, left).sendall(bytes(16 << 20))
    assert all(steps[1:]), "each time it took some"


NO_HOSTS = ["http://[]", "http://[1.2.3.4]x:1", "http://[[1.2.3.4]]:1", "https://[1.2.3.4", "http://[a:b]", "[1.2.3.4]"]


@pytest.mark.parametrize(
    "url", ["ftp://x", "x", "", "http://", "https://h:99999", "http://[bad", "http://h:port", *NO_HOSTS]
)
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(CniError, match="API server: expected an http or https URL") as caught:
        kube.read_pod(Client(ApiServer(url=url)), "blue", "web", "")
    assert caught.value.code == 7


@pytest.mark.parametrize("host", ["[127.0.0.1]", "[localhost]", "127.0.0.1"])
@pytest.mark.parametrize("path", ["", "/"])
def test_brackets_around_what_is_no_ipv6_address(api: Api, tmp_path: Path, host: str, path: str) -> None:
    """As Multus' installer wrote its kubeconfig on every node for years, whatever KUBERNETES_SERVICE_HOST was."""
    url = api.url.replace("127.0.0.1", host) + path
    assert headers(api, written(tmp_path, kubeconfig(url, {"token": "t"})))["Authorization"] == "Bearer t"
    assert headers(api, Credentials(api_root=url))


@pytest.mark.parametrize(
    ("url", "host", "port", "path"),
    [
        ("https://[10.96.0.1]:443", "10.96.0.1", 443, ""),
        ("https://[10.96.0.1]", "10.96.0.1", None, ""),
        (" HTTPS://[api.hcp.example]:443/k8s/ ", "api.hcp.example", 443, "/k8s"),
        ("https://[fd00::1]:6443/k8s", "fd00::1", 6443, "/k8s"),
        ("https://[::ffff:10.0.0.1]", "::ffff:10.0.0.1", None, ""),
        ("https://[fe80::1%25eth0]:443", "fe80::1%eth0", 443, ""),
        ("https://a/b[1]", "a", None, "/b%5B1%5D"),
    ],
)
def test_the_parts_of_a_url(url: str, host: str, port: int | None, path: str) -> None:
    assert kube._parts_of(url) == ("https", host, port, path)


def test_a_user_in_the_url_is_refused(api: Api) -> None:
    with pytest.raises(CniError, match="a user in the URL is not supported") as caught:
        headers(api, Credentials(api_root=api.url.replace("127", "me:secret@127")))
    assert caught.value.code == 7
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("more", ["?cluster=a", "/k8s?cluster=a", "#a"])
def test_a_query_in_the_url_is_refused(api: Api, more: str) -> None:
    with pytest.raises(CniError, match="expected a URL without a query") as caught:
        headers(api, Credentials(api_root=api.url + more))
    assert caught.value.code == 7


def test_a_path_in_the_url_comes_first(api: Api) -> None:
    api.answers = {f"/k8s/clusters/c-1{POD}": (200, WEB)}
    assert kube.read_pod(Client(ApiServer(url=f"{api.url}/k8s/clusters/c-1/")), "blue", "web", "").uid == "u-1"


# --- Events -----------------------------------------------------------------------------------------------------

EVENTS = "/api/v1/namespaces/blue/events"


def direct(api: Api) -> DirectKube:
    return DirectKube(Conf(name="genie", cni_version="1.0.0", credentials=Credentials(api_root=api.url), api_timeout=1))


def test_direct_mode_writes_an_event_at_once(api: Api) -> None:
    api.answers[EVENTS] = (201, {})
    pod = Pod(namespace="blue", name="web", uid="u-1")
    run_sync(direct(api).event(pod, "AddedInterface", "Add eth0"))
    ((verb, _, _, body),) = api.requests
    assert verb == "POST" and body["involvedObject"]["uid"] == "u-1"
    assert (body["type"], body["reason"], body["message"]) == ("Normal", "AddedInterface", "Add eth0")


@pytest.mark.parametrize("answer", [(403, {}), (500, {}), (200, b"no JSON")])
def test_direct_mode_gives_up_on_events_after_the_first_failure(api: Api, answer: tuple[int, Any]) -> None:
    api.answers[EVENTS] = answer
    asker = direct(api)
    for message in ("a", "b"):
        run_sync(asker.event(Pod(namespace="blue", name="web"), "Drift", message, warning=True))
    assert len(api.requests) == 1


# --- credentials ------------------------------------------------------------------------------------------------


def headers(api: Api, credentials: Credentials) -> dict[str, str]:
    conf = Conf(name="k8s", cni_version="1.0.0", credentials=credentials, api_timeout=5)
    run_sync(DirectKube(conf).pod("blue", "web", "u-1"))
    return api.requests[-1][2]


def written(folder: Path, data: Any, dump: Callable[[Any], str] = json.dumps) -> Credentials:
    (folder / "kubeconfig").write_text(data if isinstance(data, str) else dump(data))
    return Credentials(kubeconfig=str(folder / "kubeconfig"))


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("token: @secret-of-genie", "at line 2, column 10: found character '@' that cannot start any token"),
        ("token: secret-of-genie\n\tx: 1", "at line 3, column 1: found character '\\t' that cannot start any token"),
        ('token: "secret-of-genie', "at line 3, column 1: found unexpected end of stream"),
        ("token: secret-of-genie: x", "at line 2, column 25: mapping values are not allowed here"),
        ("token: secret-of-genie\n...\n---", "at line 4, column 1: but found another document"),
        ("token: secret-of-genie\x01", ": special characters are not allowed"),
        ("token: secret-of-genie\n  when: 2024-99-99", ": a value that cannot be read"),
    ],
)
def test_a_mistake_in_a_kubeconfig_is_one_line_without_its_text(tmp_path: Path, line: str, why: str) -> None:
    """Errors of an ADD are Events of the pod, and a line of a kubeconfig may be a token."""
    with pytest.raises(CniError) as caught:
        kube.server(written(tmp_path, f"user:\n  {line}\n"))
    assert caught.value.msg.endswith(f"neither JSON nor YAML{why if why[0] == ':' else f' {why}'}")
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("dump", [json.dumps, yaml.safe_dump])
def test_a_kubeconfigs_token_is_sent(api: Api, tmp_path: Path, dump: Callable[[Any], str]) -> None:
    credentials = written(tmp_path, kubeconfig(api.url, {"token": "t0ken"}), dump)
    assert headers(api, credentials)["Authorization"] == "Bearer t0ken"


def test_a_token_file_beside_the_kubeconfig_is_read_for_each_request(api: Api, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("one\n")
    client = Client(kube.server(written(tmp_path, kubeconfig(api.url, {"tokenFile": "token"}))), timeout=5)
    kube.read_pod(client, "blue", "web", "")
    (tmp_path / "token").write_text("two\n")
    kube.read_pod(client, "blue", "web", "")
    assert [request[2]["Authorization"] for request in api.requests] == ["Bearer one", "Bearer two"]
    (tmp_path / "token").unlink()
    with pytest.raises(CniError, match="cannot read .*token: No such file"):
        kube.read_pod(client, "blue", "web", "")
    (tmp_path / "token").write_text("\n")
    with pytest.raises(CniError, match="token: expected a token, found nothing"):
        kube.read_pod(client, "blue", "web", "")


def test_a_kubeconfig_without_a_user_sends_no_token(api: Api, tmp_path: Path) -> None:
    data = kubeconfig(api.url)
    data["contexts"][1]["context"] = {"cluster": "c"}
    assert "Authorization" not in headers(api, written(tmp_path, data))


def test_the_policys_root_and_token(api: Api) -> None:
    assert headers(api, Credentials(api_root=api.url, token="t0ken\n"))["Authorization"] == "Bearer t0ken"


def test_a_token_that_is_none(api: Api) -> None:
    with pytest.raises(CniError, match="the token has characters that no token has") as caught:
        headers(api, Credentials(api_root=api.url, token="two\nlines"))
    assert caught.value.code == 7


def test_the_cluster_that_genie_runs_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kube, "SERVICE_ACCOUNT", str(tmp_path))
    for name in ("token", "ca.crt"):
        (tmp_path / name).write_text(name)
    environment = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "6443"}
    found = kube.server(Credentials(), environment)
    assert (found.url, found.ca, found.token_file) == ("https://[fd00::1]:6443", "ca.crt", f"{tmp_path}/token")
    environment["KUBERNETES_SERVICE_HOST"] = "10.96.0.1"
    assert kube.server(Credentials(), environment).url == "https://10.96.0.1:6443"


def test_without_credentials_the_error_names_the_ways_to_the_api_server(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(kube, "SERVICE_ACCOUNT", str(tmp_path))
    with pytest.raises(CniError, match="no way to the API server: give kubernetes.kubeconfig, or policy") as caught:
        kube.server(Credentials(), {})
    assert caught.value.code == 7


def cni_genies_own(url: str, kubeconfig: Path) -> Credentials:
    """Its ConfigMap, as launch.sh fills it in (CNI-Genie, conf/1.8)."""
    kubeconfig.write_text(CNI_GENIES_KUBECONFIG)
    kubernetes = {"k8s_api_root": url, "kubeconfig": str(kubeconfig)}
    policy = {"type": "k8s", "k8s_auth_token": "t0ken"}
    conf = {"name": "k8s-pod-network", "type": "genie", "cniVersion": "0.2.0"}
    return config.parse({**conf, "kubernetes": kubernetes, "policy": policy}).credentials


CNI_GENIES_KUBECONFIG = """\
# Kubeconfig file for CNIGenie CNI plugin.
apiVersion: v1
kind: Config
clusters:
- name: local
  cluster:
    insecure-skip-tls-verify: true
users:
- name: genie
contexts:
- name: genie-context
  context:
    cluster: local
    user: genie
current-context: genie-context
"""


def test_cni_genies_own_files_are_laid_one_over_the_other(api: Api, tmp_path: Path) -> None:
    assert headers(api, cni_genies_own(api.url, tmp_path / "kubeconfig"))["Authorization"] == "Bearer t0ken"


def test_cni_genies_own_files_reach_a_server_that_nobody_vouches_for(secure: Api, tmp_path: Path) -> None:
    assert headers(secure, cni_genies_own(secure.url, tmp_path / "kubeconfig"))["Authorization"] == "Bearer t0ken"


def test_values_of_genie_conf_win_over_the_kubeconfig(tmp_path: Path) -> None:
    """Overrides of a file as in client-go: each rule is in tools/clientcmd/client_config.go."""
    for name in ("ca", "crt", "key", "token"):
        (tmp_path / name).write_text(f"the policy's {name}")
    cluster = {"tls-server-name": "old", "insecure-skip-tls-verify": True}
    who = {"tokenFile": "token", "client-certificate": "crt", "client-key-data": b64(tmp_path / "key")}
    base = written(tmp_path, kubeconfig("https://old", who, **cluster))
    assert kube.server(base) == ApiServer(
        url="https://old", verify=False, server_name="old", token_file=str(tmp_path / "token"),
        certificate="the policy's crt", key="the policy's key",
    )  # fmt: skip
    given = replace(base, api_root="https://new", token=" new ", certificate_authority=str(tmp_path / "ca"),
                    client_certificate=str(tmp_path / "ca"), client_key=str(tmp_path / "token"))  # fmt: skip
    assert kube.server(given) == ApiServer(
        url="https://new", ca="the policy's ca", token="new", certificate="the policy's ca", key="the policy's token"
    )


def changed(**parts: Any) -> dict[str, Any]:
    return {**kubeconfig("http://127.0.0.1:1"), **parts}


def user(**parts: Any) -> dict[str, Any]:
    return kubeconfig("http://127.0.0.1:1", parts)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(data=JSON)
def test_whatever_is_answered_for_an_object_nothing_but_an_error_of_ours(api: Api, client: Client, data: Any) -> None:
    for answer in (data, {"metadata": data}, {"metadata": {"annotations": data}}, {"metadata": {}, "spec": data}):
        api.answers[POD] = (200, answer)
        try:
            pod = kube.read_pod(client, "blue", "web", "")
        except CniError as error:
            assert error.code == 11 and "cannot read pod blue/web" in error.msg
        else:
            assert pod.annotations.get("cni") is None or isinstance(pod.annotations, dict)


WRONG: list[tuple[Any, str]] = [
    ("{", "neither JSON nor YAML"),
    ("a: 2024-99-99", "neither JSON nor YAML"),
    ("just text", "expected an object with clusters, users and contexts"),
    ("[]", "expected an object with clusters, users and contexts"),
    ("[" * 2000, "kubeconfig"),
    (changed(clusters=5), "clusters: expected a list"),
    (changed(contexts=["here"]), "contexts[0]: expected an object"),
    (changed(users={"genie": {}}), "users: expected a list"),
    (changed(contexts=None), "contexts: expected an entry named 'here', found none"),
    (changed(**{"current-context": 7}), "current-context: expected a string, found 7"),
    (changed(**{"current-context": "gone"}), "contexts: expected an entry named 'gone', found 'other', 'here'"),
    (changed(contexts=[{"name": "here", "context": "c"}]), "contexts[0]: context: expected an object"),
    (changed(clusters=[{"name": "c", "cluster": [1]}]), "clusters[0]: cluster: expected an object"),
    (changed(clusters=[{"name": "c"}]), "clusters[0]: cluster: server: expected a string, found nothing"),
    (changed(clusters=[{"name": "c", "cluster": {"server": 5}}]), "server: expected a string, found 5"),
    (user(username="me", password="x"), "users[0]: user: username is not supported; API servers take no passwords"),
    (user(**{"as": "admin"}), "users[0]: user: as is not supported; give the credentials of the account"),
    (user(**{"as-groups": ["system:masters"]}), "users[0]: user: as-groups is not supported"),
    (user(tokenfile="token"), "users[0]: user: tokenfile is not supported"),
    (kubeconfig("http://h", **{"proxy-url": "socks5://p:1080"}), "cluster: proxy-url is not supported; give a server"),
    (kubeconfig("http://h", proxyURL=1), "clusters[0]: cluster: proxyURL is not supported"),
    (kubeconfig("https://h", **{"certificate-authority": "kubeconfig.empty"}), "expected PEM text, found nothing"),
    (user(exec={"command": "aws"}), "users[0]: user: exec is not supported"),
    (user(**{"auth-provider": {"name": "gcp"}}), "users[0]: user: auth-provider is not supported"),
    (user(token=5), "users[0]: user: token: expected a string, found 5"),
    (user(tokenFile=["x"]), "users[0]: user: tokenFile: expected a string"),
    (user(**{"client-certificate-data": "é"}), "client-certificate-data: expected PEM text in base64"),
    (user(**{"client-certificate-data": "A"}), "client-certificate-data: expected PEM text in base64"),
    (user(**{"client-certificate-data": "!!!!"}), "client-certificate-data: expected PEM text in base64"),
    (kubeconfig("https://h", **{"certificate-authority-data": "Cg=="}), "expected PEM text in base64, found nothing"),
    (user(**{"client-certificate": "none.pem"}), "none.pem: No such file"),
    (user(**{"client-certificate": "kubeconfig"}), "client-certificate: expected a client-key with it"),
    (user(**{"client-key": "kubeconfig"}), "client-key: expected a client-certificate with it"),
    (
        kubeconfig("https://h", **{"certificate-authority": "kubeconfig", "insecure-skip-tls-verify": True}),
        "cluster: insecure-skip-tls-verify: expected no certificate-authority with it",
    ),
    (user(**{"client-key": "kubeconfig.fifo"}), "kubeconfig.fifo: it is no file"),
    (user(**{"client-key": "kubeconfig.huge"}), "kubeconfig.huge: it has more than 1048576 bytes"),
    (kubeconfig("http://h", **{"insecure-skip-tls-verify": "yes"}), "expected true or false"),
    (kubeconfig("http://h", **{"tls-server-name": 5}), "tls-server-name: expected a string"),
]


@pytest.mark.parametrize(("data", "complaint"), WRONG)
def test_a_wrong_kubeconfig_is_refused_by_field(tmp_path: Path, data: Any, complaint: str) -> None:
    (tmp_path / "kubeconfig.empty").touch()
    os.mkfifo(tmp_path / "kubeconfig.fifo")
    (tmp_path / "kubeconfig.huge").write_text("x" * (kube.FILE_MAX + 1))
    with pytest.raises(CniError) as caught:
        kube.server(written(tmp_path, data))
    assert complaint in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert caught.value.code == 7


@pytest.mark.parametrize("nothing", [None, "", [], {}, False])
def test_a_field_that_asks_for_nothing_is_no_wish(api: Api, tmp_path: Path, nothing: Any) -> None:
    data = kubeconfig(api.url, {"token": "t", "exec": nothing, "as-groups": nothing}, **{"proxy-url": nothing})
    data["clusters"][0]["cluster"].update(
        {"disable-compression": True, "api-version": "v1", "extensions": [{"name": "minikube"}]}
    )
    assert headers(api, written(tmp_path, data))["Authorization"] == "Bearer t"


@given(st.text(max_size=12), st.sampled_from([True, 1, "x", ["x"], {"x": 1}]), st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_field_that_genie_does_not_do_is_refused_by_name(
    tmp_path: Path, key: str, value: Any, of_user: bool
) -> None:
    assume(key not in (*kube._OF_USER, *kube._OF_CLUSTER) and key.isprintable())
    data = user(**{key: value}) if of_user else kubeconfig("http://h", **{key: value})
    with pytest.raises(CniError) as caught:
        kube.server(written(tmp_path, data))
    assert f"{'user' if of_user else 'cluster'}: {key} is not supported" in str(caught.value)


def test_a_kubeconfig_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CniError, match="cannot read .*/none: No such file") as caught:
        kube.server(Credentials(kubeconfig=str(tmp_path / "none")))
    assert caught.value.code == 7


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ("kubernetes", "kubeconfig"),
        ("policy", "k8s_certificate_authority"),
        ("policy", "k8s_client_certificate"),
        ("policy", "k8s_client_key"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_the_field_of_genie_conf(
    tmp_path: Path, section: str, key: str
) -> None:
    settings = {"kubernetes": {"k8s_api_root": "https://h"}, "policy": {}}
    settings[section][key] = "/nowhere"
    conf = config.parse({"name": "g", "cniVersion": "1.0.0", **settings}, "/etc/cni/net.d/00-genie.conf")
    with pytest.raises(CniError) as caught:
        kube.server(conf.credentials)
    assert (
        caught.value.msg
        == f"/etc/cni/net.d/00-genie.conf: {section}.{key}: cannot read /nowhere: No such file or directory"
    )


@pytest.mark.parametrize(
    ("entry", "key"), [("cluster", "certificate-authority"), ("user", "client-certificate"), ("user", "tokenFile")]
)
def test_a_file_that_cannot_be_read_is_named_with_the_field_of_the_kubeconfig(
    tmp_path: Path, entry: str, key: str
) -> None:
    wanted = {key: "/nowhere"}
    given = written(tmp_path, user(**wanted) if entry == "user" else kubeconfig("https://h", **wanted))
    with pytest.raises(CniError) as caught:
        kube.server(given).bearer()
    where = f"kubeconfig {tmp_path}/kubeconfig: {entry}s[0]: {entry}: {key}"
    assert caught.value.msg == f"{where}: cannot read /nowhere: No such file or directory"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just("c"),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["name", "cluster", "user", "context", "server", "token"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(["clusters", "contexts", "users", "current-context"]), JSON))
def test_any_kubeconfig_is_read_or_refused(tmp_path: Path, parts: dict[str, Any]) -> None:
    try:
        kube.server(written(tmp_path, changed(**parts)))
    except CniError as error:
        assert error.code == 7


# --- TLS --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new CA, a server's certificate for 127.0.0.1 and `api.test`, and a client's; with elliptic curves, to be
    fast."""
    if shutil.which("openssl") is None:
        pytest.skip("TLS: `openssl` is not there to make certificates with")
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*arguments: str) -> None:
        done = subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl("req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=ca", "-days", "2")
    for name, extension in (
        ("server", "subjectAltName=IP:127.0.0.1,DNS:api.test"),
        ("client", "extendedKeyUsage=clientAuth"),
    ):
        (folder / f"{name}.ext").write_text(extension)
        openssl("req", *curve, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        ca = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", f"{name}.ext")
        openssl("x509", "-req", "-in", f"{name}.csr", *ca, "-out", f"{name}.crt")
    openssl("ec", "-in", "client.key", "-aes128", "-passout", "pass:secret", "-out", "locked.key")
    return folder


@pytest.fixture
def secure(certificates: Path, request: pytest.FixtureRequest) -> Iterator[Api]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.crt", certificates / "server.key")
    context.load_verify_locations(certificates / "ca.crt")
    context.verify_mode = getattr(request, "param", ssl.CERT_NONE)
    api = Api("")
    server = serve(api, context)
    yield api
    server.shutdown()
    server.server_close()


def b64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


@pytest.mark.parametrize("secure", [ssl.CERT_REQUIRED], indirect=True)
@pytest.mark.parametrize("inline", [True, False])
def test_client_certificates_are_presented(secure: Api, certificates: Path, tmp_path: Path, inline: bool) -> None:
    def of(key: str, file: str) -> dict[str, str]:
        return {f"{key}-data": b64(certificates / file)} if inline else {key: str(certificates / file)}

    who = {**of("client-certificate", "client.crt"), **of("client-key", "client.key")}
    data = kubeconfig(secure.url, who, **of("certificate-authority", "ca.crt"))
    assert headers(secure, written(tmp_path, data))
    data = kubeconfig(secure.url, {}, **of("certificate-authority", "ca.crt"))
    with pytest.raises(CniError) as caught:
        headers(secure, written(tmp_path, data))
    assert caught.value.code == 11


def test_the_policys_certificates(secure: Api, certificates: Path) -> None:
    paths = {
        "certificate_authority": str(certificates / "ca.crt"),
        "client_certificate": str(certificates / "client.crt"),
        "client_key": str(certificates / "client.key"),
    }
    assert headers(secure, Credentials(api_root=secure.url, **paths))


def test_a_server_of_another_authority_is_not_believed(secure: Api, tmp_path: Path) -> None:
    with pytest.raises(CniError, match="certificate verify failed") as caught:
        headers(secure, written(tmp_path, kubeconfig(secure.url)))
    assert caught.value.code == 11
    assert headers(secure, written(tmp_path, kubeconfig(secure.url, **{"insecure-skip-tls-verify": True})))


def test_no_request_is_sent_without_tls_after_the_server_has_closed_a_connection(
    secure: Api, certificates: Path
) -> None:
    """As an API server that shuts down announces it. A plain connection would be a further one, and show the token."""
    secure.last = True
    client = Client(ApiServer(url=secure.url, ca=(certificates / "ca.crt").read_text(), token="secret"), timeout=5)
    for count in range(1, 4):
        assert kube.read_pod(client, "blue", "web", "u-1").name == "web"
        status, pieces = client.open(POD, within=5)
        assert (status, json.loads(b"".join(pieces))["metadata"]["name"]) == (200, "web")
        assert secure.connections == len(secure.requests) == 2 * count


@pytest.mark.parametrize("name", [".api.test", "a..b"])
def test_what_can_be_no_tls_server_name_is_an_error_that_names_it(secure: Api, name: str) -> None:
    with pytest.raises(CniError, match="expected the name of a host there, or in tls-server-name") as caught:
        kube.read_pod(Client(ApiServer(url=secure.url, server_name=name, token="fine"), timeout=5), "blue", "web", "")
    assert caught.value.code == 7


def test_an_authority_without_key_identifiers_is_believed_by_every_python(
    secure: Api, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`openssl x509` gives the server's certificate none. From 3.13 on, Python's default contexts are strict."""
    made = ssl.create_default_context

    def strict(**given: Any) -> ssl.SSLContext:
        context = made(**given)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    monkeypatch.setattr(ssl, "create_default_context", strict)
    client = Client(ApiServer(url=secure.url, ca=(certificates / "ca.crt").read_text()), timeout=5)
    assert kube.read_pod(client, "blue", "web", "").name == "web"


COMMENTS = ["# NetLock Arany (Class Gold) Főtanúsítvány\n".encode(), "# Főtanúsítvány\r\n".encode("utf-16"),
            b"# Autorit\xe9 racine\n", b"\xef\xbb\xbf", b"Subject: CN=ca\n"]  # fmt: skip


@pytest.mark.parametrize("comment", COMMENTS)
@pytest.mark.parametrize("inline", [True, False])
def test_comments_in_a_bundle_are_nobodys_business(
    secure: Api, certificates: Path, tmp_path: Path, comment: bytes, inline: bool
) -> None:
    own = (certificates / "ca.crt").read_bytes()
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(comment + (certificates / "server.crt").read_bytes() + b"\n" + comment + b"\n" + own)
    authority = {"certificate-authority-data": b64(bundle)} if inline else {"certificate-authority": str(bundle)}
    assert headers(secure, written(tmp_path, kubeconfig(secure.url, **authority)))
    assert headers(secure, Credentials(api_root=secure.url, certificate_authority=str(bundle)))


@pytest.mark.parametrize("text", ["é", "no PEM", "#\n"])
def test_an_authority_without_a_certificate_is_never_the_systems(secure: Api, tmp_path: Path, text: str) -> None:
    (tmp_path / "ca").write_text(text)
    with pytest.raises(CniError, match="authority is not PEM") as caught:
        headers(secure, written(tmp_path, kubeconfig(secure.url, **{"certificate-authority": "ca"})))
    assert caught.value.code == 7


def test_a_server_of_another_name(secure: Api, certificates: Path, tmp_path: Path) -> None:
    authority = {"certificate-authority": str(certificates / "ca.crt")}
    good = kubeconfig(secure.url, **authority, **{"tls-server-name": "api.test"})
    assert headers(secure, written(tmp_path, good))
    bad = kubeconfig(secure.url, **authority, **{"tls-server-name": "other.test"})
    with pytest.raises(CniError, match="certificate verify failed"):
        headers(secure, written(tmp_path, bad))


@pytest.mark.parametrize(
    ("who", "cluster", "complaint"),
    [
        ({}, {"certificate-authority-data": base64.b64encode(b"no PEM").decode()}, "authority is not PEM"),
        ({"client-certificate": "client.crt", "client-key": "server.key"}, {}, "certificate or its key cannot be used"),
        ({"client-certificate": "client.crt", "client-key": "locked.key"}, {}, "certificate or its key cannot be used"),
        ({"client-certificate": "client.crt"}, {}, "client-certificate: expected a client-key with it"),
    ],
)
def test_certificates_that_cannot_be_used(
    secure: Api, certificates: Path, who: dict[str, str], cluster: dict[str, str], complaint: str
) -> None:
    credentials = written(certificates, kubeconfig(secure.url, who, **cluster))
    with pytest.raises(CniError, match=complaint) as caught:
        headers(secure, credentials)
    assert caught.value.code == 7
