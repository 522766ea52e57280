"""A chain of plugins with a fake executor: the calls, their order and their input."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genie.cni import config as configs
from genie.cni import invoke, version
from genie.cni.config import NetworkConfig
from genie.cni.errors import CniError, Code
from genie.cni.execute import Outcome, PluginCall, run_sync
from genie.cni.invoke import Attachment, PluginError, Progress
from genie.cni.result import IP, Interface, Result

Plugin = Callable[[str, dict[str, Any]], Outcome]


def answer(data: object, status: int = 0) -> Outcome:
    return Outcome(status=status, stdout=json.dumps(data).encode())


def refusal(code: int, msg: str, details: str = "") -> Outcome:
    return answer({"cniVersion": "1.0.0", "code": code, "msg": msg, "details": details}, status=1)


def well_behaved(command: str, request: dict[str, Any]) -> Outcome:
    """Adds an interface named like its type to prevResult."""
    if command != "ADD":
        return Outcome(status=0)
    result = request.get("prevResult") or {"cniVersion": request["cniVersion"]}
    made = [*result.get("interfaces", []), {"name": request["type"]}]
    return answer({**result, "interfaces": made, "unknown": "key"})


def speaking(*versions: str, then: Plugin = well_behaved) -> Plugin:
    """A plugin that supports only these versions, like the reference skeleton."""

    def plugin(command: str, request: dict[str, Any]) -> Outcome:
        if command == "VERSION":
            return answer({"cniVersion": request["cniVersion"], "supportedVersions": versions})
        if request["cniVersion"] not in versions:
            return refusal(1, "incompatible CNI versions", f"plugin supports {versions}")
        return then(command, request)

    return plugin


@dataclass
class Fake:
    """Plugins by type, with their calls."""

    plugins: Mapping[str, Plugin]
    calls: list[tuple[str, str, dict[str, Any], Mapping[str, str]]] = field(default_factory=list)

    async def claim(self, path: str) -> None:
        raise NotImplementedError

    async def run(self, call: PluginCall) -> Outcome:
        kind = Path(call.binary).name
        command, request = call.env["CNI_COMMAND"], json.loads(call.stdin)
        self.calls.append((kind, command, request, call.env))
        return self.plugins.get(kind, well_behaved)(command, request)

    async def gather(self, *work: Coroutine[Any, Any, Any]) -> list[Any]:
        return [await one for one in work]

    async def in_thread(self, work: Callable[[], Any], *, waits: bool = False) -> Any:
        return work()

    @property
    def order(self) -> list[tuple[str, str]]:
        return [(command, kind) for kind, command, _, _ in self.calls]

    def requests(self, command: str) -> list[dict[str, Any]]:
        return [request for _, output, request, _ in self.calls if output == command]


@pytest.fixture(scope="module")
def binaries(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("bin")
    for kind in ("a", "b", "c"):
        (folder / kind).touch(mode=0o755)
    (folder / "plain").touch(mode=0o644)
    return str(folder)


@pytest.fixture
def attachment(binaries: str) -> Attachment:
    return Attachment(
        container_id="c1",
        netns="/run/netns/x",
        ifname="eth0",
        args="K8S_POD_NAME=p",
        path=("", "/nowhere", binaries),
        runtime_config={"portMappings": [{"hostPort": 80}], "mac": "02:00:00:00:00:01"},
        env={"PATH": "/bin", "CNI_IFNAME": "stale", "CNI_SOMETHING": "stale"},
    )


def network(*plugins: dict[str, Any] | str, **more: Any) -> NetworkConfig:
    listed = [{"type": one} if isinstance(one, str) else one for one in plugins]
    return configs.parse(json.dumps({"cniVersion": "1.0.0", "name": "blue", "plugins": listed, **more}), "blue")


def test_add_chains_the_results(attachment: Attachment) -> None:
    fake = Fake({})
    result = run_sync(invoke.add(network("a", "b", "c"), attachment, fake))
    assert fake.order == [("ADD", "a"), ("ADD", "b"), ("ADD", "c")]
    assert [one.name for one in result.interfaces] == ["a", "b", "c"]
    first, second, third = fake.requests("ADD")
    assert "prevResult" not in first
    assert second["prevResult"] == {"cniVersion": "1.0.0", "interfaces": [{"name": "a"}]}
    assert [one["name"] for one in third["prevResult"]["interfaces"]] == ["a", "b"]
    assert all(request["name"] == "blue" and request["cniVersion"] == "1.0.0" for request in (first, second))


def test_the_environment_is_complete_and_nothing_is_stale(attachment: Attachment, binaries: str) -> None:
    fake = Fake({})
    run_sync(invoke.add(network("a"), attachment, fake))
    assert fake.calls[0][3] == {
        "PATH": "/bin",
        "GENIE_CALLED": "1",
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "c1",
        "CNI_NETNS": "/run/netns/x",
        "CNI_IFNAME": "eth0",
        "CNI_ARGS": "K8S_POD_NAME=p",
        "CNI_PATH": f":/nowhere:{binaries}",
    }


def test_a_plugin_gets_the_capabilities_that_it_declares(attachment: Attachment) -> None:
    fake = Fake({})
    declared = {"type": "a", "capabilities": {"portMappings": True, "mac": False, "bandwidth": True}}
    run_sync(invoke.add(network(declared, "b"), attachment, fake))
    first, second = fake.requests("ADD")
    assert first["runtimeConfig"] == {"portMappings": [{"hostPort": 80}]}
    assert "capabilities" not in first
    assert "runtimeConfig" not in second


def test_plugins_get_their_own_fields_and_no_reserved_ones(attachment: Attachment) -> None:
    fake = Fake({})
    own = {"type": "a", "x": {"y": [1, None]}, "args": {"cni": {"ips": []}}}
    reserved = {"prevResult": {"ips": []}, "runtimeConfig": {"mac": "x"}, "cni.dev/x": 1}
    run_sync(invoke.add(network({**own, **reserved}), attachment, fake))
    assert fake.requests("ADD") == [{**own, "name": "blue", "cniVersion": "1.0.0"}]


@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_failed_add_tells_how_far_it_came_and_undoes_nothing(attachment: Attachment, position: int) -> None:
    bad = "abc"[position]
    fake = Fake({bad: lambda command, _: refusal(103, "no", "at all")})
    plan, progress = network("a", "b", "c"), Progress()
    with pytest.raises(PluginError) as caught:
        run_sync(invoke.add(plan, attachment, fake, progress))
    error = caught.value
    assert str(error) == f"network 'blue': plugin '{bad}': ADD: no; at all"
    assert (error.code, error.plugin, error.ifname) == (103, plan.plugins[position], "eth0")
    assert (str(error.own), error.cut_off) == ("no; at all", False)
    assert fake.order == [("ADD", kind) for kind in "abc"[: position + 1]]
    assert progress.called == position + 1
    made = [one.name for one in progress.result.interfaces] if progress.result else []
    assert made == list("abc"[:position])


@pytest.mark.parametrize(
    ("outcome", "cut_off"),
    [
        (Outcome(status=-9, error="no answer within 60 seconds; killed"), True),
        (Outcome(status=-1, error="the shim went away"), True),
        (Outcome(status=-1, error="/a could not be started: Exec format error", errno=8), False),
        (Outcome(status=2, stderr=b"panic"), False),
        (Outcome(status=-9), False),
        (refusal(5, "no space left"), False),
    ],
)
def test_an_error_says_whether_the_plugin_was_cut_off(attachment: Attachment, outcome: Outcome, cut_off: bool) -> None:
    with pytest.raises(PluginError) as caught:
        run_sync(invoke.add(network("a"), attachment, Fake({"a": lambda *_: outcome})))
    assert caught.value.cut_off is cut_off


def test_a_missing_plugin_is_an_error_with_the_places_searched(attachment: Attachment, binaries: str) -> None:
    fake = Fake({})
    with pytest.raises(CniError, match=f"no plugin 'z': looked in /nowhere, {binaries}"):
        run_sync(invoke.add(network("a", "z"), attachment, fake))
    assert fake.order == [("ADD", "a")]
    with pytest.raises(CniError, match="plain is not executable"):
        invoke.find("plain", [binaries])
    with pytest.raises(CniError, match="CNI_PATH is empty"):
        invoke.find("a", [])


@pytest.mark.parametrize(
    ("outcome", "complaint", "code"),
    [
        (Outcome(status=0), "succeeded, but printed no result", Code.DECODING_FAILURE),
        (
            Outcome(status=0, stdout=b'{"ips": [' + b"1," * 64 + b"1]}"),
            "result: ips: 65 entries, of at most 64",
            Code.DECODING_FAILURE,
        ),
        (
            Outcome(status=0, stdout=b" " * invoke.RESULT_MAX + b"{}"),
            "its result has 131074 bytes, of at most 131072",
            Code.DECODING_FAILURE,
        ),
        (Outcome(status=0, stdout=b"hello"), "its result is not JSON: 'hello'", Code.DECODING_FAILURE),
        (Outcome(status=0, stdout=b"null"), "expected an object, found nothing", Code.DECODING_FAILURE),
        (answer({"ips": 3}), "ips: expected a list, found 3", Code.DECODING_FAILURE),
        (answer({"cniVersion": "8.0.0"}), "cniVersion: expected one of", Code.INCOMPATIBLE_VERSION),
        (answer({"code": 7, "msg": "said with status 0"}), "said with status 0", 7),
        (answer({"code": 11, "msg": 'no "ips" or "interfaces" left'}), 'no "ips" or "interfaces" left', 11),
        (answer({"code": 1 << 64, "msg": "no runtime reads this code"}, status=1), "no runtime reads", Code.INTERNAL),
        (Outcome(status=2, stderr=b"one\npanic: two\n"), "exit status 2: one / panic: two", Code.INTERNAL),
        (Outcome(status=2, stdout=b"usage: x"), "exit status 2: usage: x", Code.INTERNAL),
        (Outcome(status=3), "exit status 3, and no error reported", Code.INTERNAL),
        (Outcome(status=-9), "killed by signal 9, and no error reported", Code.INTERNAL),
        (Outcome(status=-9, error="no answer in time"), "no answer in time", Code.IO_FAILURE),
        (answer({"msg": "no code"}, status=1), "no code", Code.INTERNAL),
        (answer({"code": 12}, status=1), "error code 12 without a message", 12),
    ],
)
def test_a_wrong_answer_of_a_plugin_is_one_error(
    attachment: Attachment, outcome: Outcome, complaint: str, code: int
) -> None:
    fake = Fake({"a": lambda command, _: outcome if command == "ADD" else Outcome(status=0)})
    with pytest.raises(CniError) as caught:
        run_sync(invoke.add(network("a"), attachment, fake))
    assert str(caught.value).startswith("network 'blue': plugin 'a': ADD: ")
    assert complaint in str(caught.value)
    assert caught.value.code == code


def test_a_result_may_have_a_key_that_looks_like_an_error_s(attachment: Attachment) -> None:
    fake = Fake({"a": lambda *_: answer({"ips": [{"address": "10.0.0.2/8"}], "code": 1, "msg": "fine"})})
    assert run_sync(invoke.add(network("a"), attachment, fake)).ips == (IP("10.0.0.2/8"),)


def test_a_plugin_may_answer_in_another_version(attachment: Attachment) -> None:
    old = {"cniVersion": "0.2.0", "ip4": {"ip": "10.0.0.2/8", "gateway": "10.0.0.1"}}
    fake = Fake({"a": lambda *_: answer(old)})
    run_sync(invoke.add(network("a", "b"), attachment, fake))
    assert fake.requests("ADD")[1]["prevResult"] == {
        "cniVersion": "1.0.0",
        "ips": [{"address": "10.0.0.2/8", "gateway": "10.0.0.1"}],
    }


def test_a_plugin_that_does_not_speak_the_version_is_asked_and_called_in_its_highest(
    attachment: Attachment,
) -> None:
    fake = Fake({"b": speaking("0.3.0", "0.3.1", "9.0.0")})
    result = run_sync(invoke.add(network("a", "b", "c"), attachment, fake))
    assert fake.order == [("ADD", "a"), ("ADD", "b"), ("VERSION", "b"), ("ADD", "b"), ("ADD", "c")]
    assert [request["cniVersion"] for request in fake.requests("ADD")] == ["1.0.0", "1.0.0", "0.3.1", "1.0.0"]
    assert fake.requests("ADD")[2]["prevResult"]["cniVersion"] == "0.3.1"
    assert fake.requests("ADD")[3]["prevResult"]["cniVersion"] == "1.0.0"
    assert [one.name for one in result.interfaces] == ["a", "b", "c"]


@given(st.sets(st.sampled_from(version.SUPPORTED), min_size=1), st.sampled_from(version.SUPPORTED))
def test_any_two_versions_find_together(binaries: str, spoken: set[str], declared: str) -> None:
    def plugin(command: str, request: dict[str, Any]) -> Outcome:
        if version.at_least(request["cniVersion"], "0.3.0"):
            return answer({"cniVersion": request["cniVersion"], "ips": [{"address": "10.0.0.2/8"}]})
        return answer({"cniVersion": request["cniVersion"], "ip4": {"ip": "10.0.0.2/8"}})

    fake = Fake({"a": speaking(*spoken, then=plugin)})
    here = Attachment(container_id="c", netns="/n", ifname="eth0", path=(binaries,))
    result = run_sync(invoke.add(network("a", cniVersion=declared), here, fake))
    assert result.ips == (IP("10.0.0.2/8"),)
    used = fake.requests("ADD")[-1]["cniVersion"]
    assert used == (declared if declared in spoken else version.highest(spoken))


@pytest.mark.parametrize(
    ("reply", "complaint"),
    [
        (answer({"cniVersion": "1.0.0", "supportedVersions": ["9.0.0"]}), "ADD: incompatible; it speaks 9.0.0"),
        (answer({"cniVersion": "1.0.0", "supportedVersions": ["1.0.0"]}), "ADD: incompatible; it speaks 1.0.0"),
        (Outcome(status=0, stdout=b"?"), "a: VERSION: exit status 0: ?"),
    ],
)
def test_a_plugin_without_a_common_version_is_an_error(attachment: Attachment, reply: Outcome, complaint: str) -> None:
    fake = Fake({"a": lambda command, _: reply if command == "VERSION" else refusal(1, "incompatible")})
    with pytest.raises(CniError) as caught:
        run_sync(invoke.add(network("a"), attachment, fake))
    assert complaint in str(caught.value)


def test_a_plugin_without_the_version_command_speaks_the_first_version(attachment: Attachment) -> None:
    fake = Fake({"a": lambda *_: refusal(100, "unknown CNI_COMMAND: VERSION")})
    spoken = invoke.supported_versions("a", attachment, fake)
    assert run_sync(spoken) == ("0.1.0",)


RESULT = Result(interfaces=(Interface("eth0", sandbox="/n"),), ips=(IP("10.0.0.2/8", interface=0),))


def test_delete_is_in_reverse_with_the_final_result(attachment: Attachment) -> None:
    fake = Fake({})
    run_sync(invoke.delete(network("a", "b"), attachment, fake, RESULT))
    assert fake.order == [("DEL", "b"), ("DEL", "a")]
    assert all(request["prevResult"]["ips"][0]["interface"] == 0 for request in fake.requests("DEL"))
    assert all(request["prevResult"]["cniVersion"] == "1.0.0" for request in fake.requests("DEL"))


def test_delete_before_0_4_0_gives_no_previous_result(attachment: Attachment) -> None:
    fake = Fake({"b": speaking("0.3.1")})
    run_sync(invoke.delete(network("a", "b"), attachment, fake, RESULT))
    asked = {request["type"]: request for request in fake.requests("DEL")}
    assert "prevResult" not in asked["b"]
    assert "prevResult" in asked["a"]


def test_delete_halts_at_a_failure_and_needs_no_namespace(attachment: Attachment) -> None:
    fake = Fake({"b": lambda *_: refusal(11, "later")})
    gone = replace(attachment, netns="")
    with pytest.raises(CniError, match="network 'blue': plugin 'b': DEL: later"):
        run_sync(invoke.delete(network("a", "b", "c"), gone, fake))
    assert fake.order == [("DEL", "c"), ("DEL", "b")]
    assert fake.calls[0][3]["CNI_NETNS"] == ""


def test_check(attachment: Attachment) -> None:
    fake = Fake({})
    run_sync(invoke.check(network("a", "b"), attachment, fake, RESULT))
    assert fake.order == [("CHECK", "a"), ("CHECK", "b")]
    assert all("prevResult" in request for request in fake.requests("CHECK"))


@pytest.mark.parametrize("more", [{"disableCheck": True}, {"cniVersion": "0.3.1"}])
def test_check_calls_nothing_in_versions_without_it(attachment: Attachment, more: dict[str, Any]) -> None:
    fake = Fake({})
    run_sync(invoke.check(network("a", **more), attachment, fake, RESULT))
    assert fake.order == []


def test_check_passes_over_a_plugin_too_old_for_it(attachment: Attachment) -> None:
    fake = Fake({"a": speaking("0.3.1")})
    run_sync(invoke.check(network("a", "b"), attachment, fake, RESULT))
    assert fake.order == [("CHECK", "a"), ("VERSION", "a"), ("CHECK", "b")]


def test_gc_asks_all_and_joins_the_errors(binaries: str) -> None:
    fake = Fake({"a": lambda *_: refusal(103, "first"), "b": lambda *_: refusal(104, "second")})
    valid = [{"containerID": "c1", "ifname": "eth0"}]
    plan = network("a", "b", "c", cniVersion="1.1.0")
    with pytest.raises(CniError) as caught:
        run_sync(invoke.gc(plan, Attachment(path=(binaries,), env={"CNI_CONTAINERID": "stale"}), fake, valid))
    assert fake.order == [("GC", "a"), ("GC", "b"), ("GC", "c")]
    assert caught.value.code == 103
    assert "first" in caught.value.msg
    assert "plugin 'b': GC: second" in caught.value.details
    for _, _, request, env in fake.calls:
        assert request["cni.dev/valid-attachments"] == valid
        assert env == {"GENIE_CALLED": "1", "CNI_COMMAND": "GC", "CNI_PATH": binaries}


@pytest.mark.parametrize("more", [{"disableGC": True, "cniVersion": "1.1.0"}, {"cniVersion": "1.0.0"}])
def test_gc_calls_nothing_in_versions_without_it(binaries: str, more: dict[str, Any]) -> None:
    fake = Fake({})
    run_sync(invoke.gc(network("a", **more), Attachment(path=(binaries,)), fake, []))
    assert fake.order == []


def test_status(binaries: str) -> None:
    fake = Fake({"b": lambda *_: refusal(50, "no addresses left")})
    plan = network("a", "b", "c", cniVersion="1.1.0")
    with pytest.raises(CniError, match="network 'blue': plugin 'b': STATUS: no addresses left") as caught:
        run_sync(invoke.status(plan, Attachment(path=(binaries,)), fake))
    assert caught.value.code == Code.NOT_AVAILABLE
    assert fake.order == [("STATUS", "a"), ("STATUS", "b")]
    fake = Fake({})
    run_sync(invoke.status(network("a"), Attachment(path=(binaries,)), fake))
    assert fake.order == []


@pytest.mark.parametrize("bad", [{"container_id": ""}, {"ifname": "a/b"}])
def test_nothing_is_called_for_parameters_that_are_none(attachment: Attachment, bad: dict[str, Any]) -> None:
    fake = Fake({})
    with pytest.raises(CniError) as caught:
        run_sync(invoke.add(network("a"), replace(attachment, **bad), fake))
    assert caught.value.code == Code.INVALID_ENVIRONMENT
    assert fake.order == []


def test_a_coroutine_that_suspends_is_no_work_for_run_sync() -> None:
    class Suspends:
        def __await__(self) -> Any:
            yield

    async def work() -> None:
        await Suspends()

    with pytest.raises(RuntimeError, match="waits for an event loop"):
        run_sync(work())
