"""Records: reading returns the complete written record or none, and damage is reported."""

from __future__ import annotations

import copy
import json
import multiprocessing
import os
import re
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genie.cni.errors import CniError
from genie.cni.result import DNS, IP, Interface, Result, Route
from genie.records import RECORD_MAX, DamagedError, Record, RecordedAttachment, Records
from tests.rigs.core import network

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
VARIABLE = st.text(st.characters(exclude_characters="\0"), max_size=10)
RESULTS = st.builds(
    Result,
    interfaces=st.just((Interface("host0"), Interface("eth0", "02:00:00:00:00:01", "/netns", 1400))),
    ips=st.lists(
        st.builds(
            IP,
            st.ip_addresses().map(lambda ip: f"{ip}/{ip.max_prefixlen // 2}"),
            st.sampled_from(["", "10.0.0.1", "fd00::1"]),
            st.sampled_from([None, 0, 1]),
        ),
        max_size=3,
    ).map(tuple),
    routes=st.lists(st.builds(Route, st.sampled_from(["0.0.0.0/0", "::/0", "10.0.0.0/8"])), max_size=2).map(tuple),
    dns=st.builds(DNS, nameservers=st.lists(st.just("10.0.0.10"), max_size=2).map(tuple), domain=TEXT),
)
ATTACHED = st.builds(
    RecordedAttachment,
    label=TEXT,
    network=st.sampled_from([network("calico"), network("x", {"type": "a", "ä": [1.5]}, {"type": "b"})]),
    container_id=VARIABLE,
    ifname=st.sampled_from(["eth0", "net1", "ä"]),
    runtime_config=st.dictionaries(TEXT, st.integers() | TEXT, max_size=2),
    default_route=st.none() | st.lists(st.sampled_from(["10.0.0.1", "fd00::1"]), max_size=2).map(tuple),
    result=st.none() | RESULTS,
    reported=st.none() | RESULTS.map(lambda result: result.routes),
    left=st.sampled_from([None, (), (0,)]),
)
RECORDS = st.builds(
    Record,
    container_id=st.just("c1"),
    ifname=st.just("eth0"),
    netns=VARIABLE,
    args=VARIABLE,
    namespace=TEXT,
    pod=TEXT,
    uid=TEXT,
    attached=st.lists(ATTACHED, min_size=1, max_size=3).map(tuple),
    complete=st.booleans(),
    annotations=st.dictionaries(TEXT, TEXT, max_size=2),
)
SIMPLE = Record(
    container_id="c1",
    ifname="eth0",
    netns="/netns",
    attached=(RecordedAttachment(label="calico", network=network("calico"), container_id="c1", ifname="eth0"),),
)


def files(records: Records) -> list[str]:
    return [path.name for path in Path(records.directory).iterdir()]


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records(str(tmp_path / "deep" / "state"))


@given(RECORDS)
def test_a_record_is_read_as_it_was_written(record: Record) -> None:
    written = json.loads(json.dumps(record.to_json()))
    assert Record.of(written) == record


def test_a_record_has_the_keys_that_other_versions_of_genie_read(records: Records) -> None:
    """A newer genie reads what an older one wrote: these are the keys."""
    net = replace(SIMPLE.attached[0].network, disable_check=True)
    attached = replace(
        SIMPLE.attached[0],
        network=net,
        runtime_config={"mac": "02:00:00:00:00:01"},
        default_route=("10.0.0.1",),
        result=Result(ips=(IP("10.0.0.2/24"),)),
        reported=(Route("0.0.0.0/0", "10.0.0.1", priority=0),),
        left=(0,),
    )
    whole = Record(
        container_id="c1", ifname="eth0", netns="/n", args="A=B", namespace="ns", pod="web", uid="u",
        attached=(attached, replace(SIMPLE.attached[0], network=replace(net, disable_check=False, disable_gc=True))),
        complete=True, annotations={"k": "v"}, arranged=("rule",),
    )  # fmt: skip
    written = {
        "label": "calico", "containerID": "c1", "ifname": "eth0", "runtimeConfig": {"mac": "02:00:00:00:00:01"},
        "defaultRoute": ["10.0.0.1"],
        "network": {
            "name": net.name, "cniVersion": net.cni_version, "source": net.source, "disableCheck": True,
            "disableGC": False, "plugins": list(net.plugins),
        },
        "result": {"cniVersion": "1.1.0", "ips": [{"address": "10.0.0.2/24"}]},
        "reported": [{"dst": "0.0.0.0/0", "gw": "10.0.0.1", "priority": 0}],
        "left": [0],
    }  # fmt: skip
    plain: dict[str, Any] = {**written, "runtimeConfig": {}, "defaultRoute": None, "result": None}
    plain["network"] = {**plain["network"], "disableCheck": False, "disableGC": True}
    del plain["left"], plain["reported"]
    expected = {
        "version": 1, "containerID": "c1", "ifname": "eth0", "netns": "/n", "args": "A=B", "namespace": "ns",
        "pod": "web", "uid": "u", "complete": True, "attachments": [written, plain], "annotations": {"k": "v"},
        "arranged": ["rule"],
    }  # fmt: skip
    assert whole.to_json() == expected
    assert Record.of(expected) == whole
    records.write(whole)
    line = (Path(records.directory) / "c1@eth0.json").read_bytes()
    assert line == json.dumps(expected, separators=(",", ":")).encode() + b"\n"


@pytest.mark.parametrize(
    ("place", "value", "complaint"),
    [
        (
            ("attachments", 0, "network", "plugins"),
            [],
            "record: attachments[0]: network: plugins: expected at least one",
        ),
        (
            ("attachments", 0, "network", "plugins", 0, "type"),
            5,
            "network: plugins[0]: type: expected a string, found 5",
        ),
        (("attachments", 0, "network", "disableGC"), "x", "network: disableGC: expected"),
        (("attachments", 0, "result"), 5, "result: expected an object, found 5"),
        (("annotations",), {"k": 5}, "record: annotations: k: expected a string, found 5"),
        (("arranged",), "x", "record: arranged: expected a list"),
        (("complete",), "x", "record: complete: expected"),
        (("netns",), None, "record: netns: expected a string, found nothing"),
        (("attachments", 0, "label"), None, "record: attachments[0]: label: expected a string, found nothing"),
        (("attachments", 0, "reported"), [{}], "record: attachments[0]: reported[0]: dst: expected an address like"),
        (("attachments",), [], "record: attachments: expected at least one attachment"),
        (("args",), "A=\0", "record: args: expected a string without NUL"),
        (("netns",), "/n\0", "record: netns: expected a string without NUL"),
        (("attachments", 0, "containerID"), "c\0", "attachments[0]: containerID: expected a string without NUL"),
        (("attachments", 0, "ifname"), "a/b", "attachments[0]: ifname: expected 1 to 15 bytes without"),
        (("attachments", 0, "network", "name"), "-x", "network: name: expected letters, digits"),
        (("attachments", 0, "network", "cniVersion"), "9.0.0", "network: cniVersion: expected one of 0.1.0"),
        (
            ("attachments", 0, "network", "plugins", 0, "type"),
            "../sh",
            "plugins[0]: type: expected the name of a plugin",
        ),
        (("attachments", 0, "left"), [1], "record: attachments[0]: left: expected positions below 1, found a list"),
    ],
)
def test_a_damaged_record_is_named(place: tuple[Any, ...], value: Any, complaint: str) -> None:
    written = json.loads(json.dumps(SIMPLE.to_json()))
    holder = written
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = value
    with pytest.raises(CniError) as caught:
        Record.of(written)
    assert caught.value.code == 6 and complaint in str(caught.value)


def test_a_sweep_removes_old_unfinished_files(records: Records) -> None:
    assert records.sweep(0) == []
    records.write(SIMPLE)
    new, old = (f"{records.directory}/{name}.json.17.4.new" for name in ("c1@eth0", "c2@eth0"))
    for path in (new, old, f"{records.directory}/other"):
        Path(path).write_text("{")
    for path in (old, f"{records.directory}/other", f"{records.directory}/c1@eth0.json"):
        os.utime(path, (5, 5))
    assert records.sweep(3600) == [old]
    assert sorted(files(records)) == ["c1@eth0.json", "c1@eth0.json.17.4.new", "other"]
    assert records.sweep(0) == [new]


def test_dated_records_have_the_time_of_their_last_write(records: Records) -> None:
    for one in ("c1", "c2"):
        records.write(replace(SIMPLE, container_id=one))
    os.utime(f"{records.directory}/c1@eth0.json", ns=(7, 1_500_000_000))
    os.utime(f"{records.directory}/c2@eth0.json", ns=(7, 2_000_000_000))
    assert [(age, one.container_id) for age, one in records.dated()] == [(1.5, "c1"), (2.0, "c2")]


def test_a_record_that_goes_while_its_age_is_read(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    records.write(SIMPLE)
    real = os.stat

    def stat(path: str) -> os.stat_result:
        Path(path).unlink()
        return real(path)

    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", stat)
        assert list(records.dated()) == []


def test_a_record_is_written_read_and_removed(records: Records) -> None:
    assert records.read("c1", "eth0") is None
    assert list(records) == []
    records.write(SIMPLE)
    assert records.read("c1", "eth0") == SIMPLE
    assert records.read("c1", "eth1") is None
    assert list(records) == [SIMPLE]
    assert files(records) == ["c1@eth0.json"]
    records.remove("c1", "eth0")
    records.remove("c1", "eth0")
    assert list(records) == []


def test_records_are_for_root_alone(records: Records) -> None:
    for one in ("eth0", "eth1"):  # with the directory, and in it
        records.write(replace(SIMPLE, ifname=one))
    path = Path(records.directory)
    assert path.stat().st_mode & 0o777 == 0o700
    assert [(path / f"c1@{one}.json").stat().st_mode & 0o777 for one in ("eth0", "eth1")] == [0o600, 0o600]


def test_a_damaged_records_interface_may_have_an_at() -> None:
    damaged = DamagedError("/state/c1@a@b.json", "it is empty")
    assert (damaged.path, damaged.container_id, damaged.ifname) == ("/state/c1@a@b.json", "c1", "a@b")
    assert damaged.msg == (
        "the record /state/c1@a@b.json is damaged (it is empty): a DEL of its container does without, and sets it aside"
    )


def test_a_write_that_fails_leaves_the_former_record(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    records.write(SIMPLE)

    def no_space(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", no_space)
    with pytest.raises(CniError, match="cannot write the record .*c1@eth0.json: No space left on device") as caught:
        records.write(replace(SIMPLE, complete=True))
    assert caught.value.code == 5
    assert records.read("c1", "eth0") == SIMPLE
    assert files(records) == ["c1@eth0.json"]


def test_a_full_disk_is_what_is_reported(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if further steps fail: writing the rest, removing the unfinished file."""
    records.make()
    real = os.open
    monkeypatch.setattr(os, "open", lambda *_: real("/dev/full", os.O_WRONLY))
    with pytest.raises(CniError) as caught:
        records.write(SIMPLE)
    assert caught.value.msg == f"cannot write the record {records.directory}/c1@eth0.json: No space left on device"


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(CniError) as caught:
        Records(f"{tmp_path}/state/deep").make()
    assert caught.value.msg.startswith(f"cannot make {tmp_path}/state/deep: ")


def test_a_record_is_completed_by_a_line(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    done = replace(SIMPLE, complete=True, arranged=("rule from 10.1.0.2 lookup 2001",))
    with pytest.raises(CniError, match="cannot complete the record .*c1@eth0.json: No such file"):
        records.complete(done)
    records.write(SIMPLE)
    path = Path(records.directory) / "c1@eth0.json"
    whole = path.read_bytes()
    records.complete(done)
    assert records.read("c1", "eth0") == done
    added = path.read_bytes()[len(whole) :]
    for cut in (1, len(added) // 2, len(added) - 1):  # ended by a crash
        path.write_bytes(whole + added[:-cut])
        assert records.read("c1", "eth0") == SIMPLE
    path.write_bytes(whole)
    monkeypatch.setattr(os, "write", lambda handle, data: 7)
    with pytest.raises(CniError, match="No space left on device") as caught:
        records.complete(done)
    assert caught.value.code == 5
    assert records.read("c1", "eth0") == SIMPLE
    records.write(replace(SIMPLE, netns="/other"))
    assert path.read_bytes().count(b"\n") == 1


def test_a_state_directory_that_is_no_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it was made by an endless recursion."""
    monkeypatch.chdir(tmp_path)
    Records("a/b").make()
    assert (tmp_path / "a" / "b").is_dir()


def test_a_state_directory_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    records = Records(str(tmp_path / "state"))
    path = f"{tmp_path}/state/c1@eth0.json"
    for attempt, doing in (
        (lambda: records.write(SIMPLE), f"write the record {path}"),
        (lambda: records.read("c1", "eth0"), f"read the record {path}"),
        (lambda: records.remove("c1", "eth0"), f"remove the record {path}"),
        (lambda: records.set_aside(DamagedError(path, "x")), f"rename the record {path}"),
        (lambda: list(records), f"read the records in {tmp_path}/state"),
    ):
        with pytest.raises(CniError) as caught:
            attempt()
        assert (caught.value.code, caught.value.msg) == (5, f"cannot {doing}: Not a directory")


def test_an_id_that_is_too_long_for_a_file(records: Records) -> None:
    with pytest.raises(CniError, match="File name too long") as caught:
        records.write(replace(SIMPLE, container_id="c" * 300))
    assert caught.value.code == 5
    assert records.read("c" * 300, "eth0") is None, "so a DEL has nothing to do"
    records.remove("c" * 300, "eth0")


# --- a power cut ----------------------------------------------------------------------------------------------------


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bytes]]:
    """The fsync calls: each path, with the contents of the file."""
    seen: list[tuple[str, bytes]] = []
    real = os.fsync

    def fsync(handle: int) -> None:
        path = Path(f"/proc/self/fd/{handle}").readlink()
        seen.append((str(path), b"" if path.is_dir() else path.read_bytes()))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    return seen


def test_a_begun_record_survives_a_power_cut_once_it_is_synced(
    records: Records, synced: list[tuple[str, bytes]]
) -> None:
    sync = records.begin(SIMPLE)
    path = f"{records.directory}/c1@eth0.json"
    whole = Path(path).read_bytes()
    assert records.read("c1", "eth0") == SIMPLE, "a writer that is killed now has written it"
    above = Path(records.directory).parents
    assert synced == [(str(above[1]), b""), (str(above[0]), b"")], "the names of directories that were made"
    synced.clear()
    sync()
    assert synced == [(path, whole), (records.directory, b"")]


def test_a_record_that_cannot_be_synced(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    sync = records.begin(SIMPLE)

    def fsync(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(CniError) as caught:
        sync()
    assert caught.value.msg == f"cannot write the record of c1 in {records.directory}: Input/output error"


def test_a_written_record_is_synced_before_it_replaces_another(
    records: Records, synced: list[tuple[str, bytes]]
) -> None:
    """Otherwise a power cut could leave an empty file in place of a complete one."""
    records.write(SIMPLE)
    synced.clear()
    records.write(replace(SIMPLE, netns="/other"))
    (file, held), (directory, _) = synced
    assert file.endswith(".new") and b"/other" in held
    assert directory == records.directory


@pytest.mark.parametrize(("number", "good"), [(5, False), (22, True)])
def test_a_directory_that_cannot_be_synced(
    records: Records, monkeypatch: pytest.MonkeyPatch, number: int, good: bool
) -> None:
    """22, EINVAL: a file system that has no such thing; 5, EIO: the disk is broken."""
    records.write(SIMPLE)
    real = os.fsync

    def fsync(handle: int) -> None:
        if Path(f"/proc/self/fd/{handle}").is_dir():
            raise OSError(number, "no")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    if good:
        records.write(SIMPLE)
    else:
        with pytest.raises(CniError, match="cannot write the names in .*: no"):
            records.write(SIMPLE)


def test_removal_also_removes_the_files_of_killed_writers(records: Records) -> None:
    records.begin(SIMPLE)
    for left in ("c1@eth0.json.17.4.new", "c1@eth0.json.18.5.new", "c1@eth1.json.17.6.new", "c12@eth0.json.17.6.new"):
        (Path(records.directory) / left).write_text("{")
    assert list(records) == [SIMPLE]
    records.remove("c1", "eth0")
    assert sorted(files(records)) == ["c12@eth0.json.17.6.new", "c1@eth1.json.17.6.new"]


# --- damage ---------------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


@pytest.mark.parametrize("text", ["", "{", "null", "[]", "5", "{}", "[" * 100_000, '{"containerID": 5}', "\xff\xfe"])
def test_a_damaged_record_names_its_file_and_what_to_do(records: Records, text: str) -> None:
    records.write(SIMPLE)
    path = Path(records.directory) / "c1@eth0.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(DamagedError) as caught:
        records.read("c1", "eth0")
    assert caught.value.code == 6
    assert (caught.value.container_id, caught.value.ifname) == ("c1", "eth0")
    assert f"the record {path} is damaged (" in str(caught.value)
    assert ("(it is empty)" if not text else "record: ") in str(caught.value), "and why"
    assert records.set_aside(caught.value) == f"{path}.damaged"
    assert records.set_aside(caught.value) == f"{path}.damaged", "by another DEL meanwhile"
    assert records.read("c1", "eth0") is None and list(records.all()) == []
    assert records.aside() == [f"{path}.damaged"]


@pytest.mark.parametrize("left", [[1], [-1], [None], [{}], ["0"], {}, "0"])
def test_positions_that_the_chain_does_not_have_are_damage(left: object) -> None:
    written = SIMPLE.to_json()
    written["attachments"][0]["left"] = left
    with pytest.raises(CniError, match=r"record: attachments\[0\]: left: expected "):
        Record.of(written)


def test_a_damaged_last_line_leaves_the_one_before(records: Records) -> None:
    records.write(SIMPLE)
    path = Path(records.directory) / "c1@eth0.json"
    path.write_bytes(path.read_bytes() + b"\0" * 40 + b"\n")
    assert records.read("c1", "eth0") == SIMPLE


def test_a_record_under_anothers_name_is_damaged(records: Records) -> None:
    records.write(SIMPLE)
    path = Path(records.directory) / "c1@eth0.json"
    path.rename(path.with_name("c2@eth0.json"))
    with pytest.raises(DamagedError, match=r"\(it is another container's\)"):
        records.read("c2", "eth0")


def _huge(path: Path) -> None:
    path.touch()
    os.truncate(path, RECORD_MAX + 1)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


#: What may lie in a record's place, and what is wrong with it. A FIFO must not be waited for, nor must a file of many
#: gigabytes be read.
STRANGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a directory": (Path.mkdir, "it is a directory"),
    "a FIFO": (os.mkfifo, "it is no file"),
    "a socket": (_socket, "it is no file: No such device"),
    "a loop of links": (lambda path: path.symlink_to(path), "it is no file: Too many levels of symbolic links"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "it is no file"),
    "a huge file": (_huge, f"it has {RECORD_MAX + 1} bytes, of at most {RECORD_MAX}"),
}


@pytest.mark.parametrize("what", STRANGE)
def test_anything_but_a_file_in_a_records_place_is_damage(records: Records, what: str) -> None:
    make, why = STRANGE[what]
    Path(records.directory).mkdir(parents=True, exist_ok=True)
    make(Path(records.directory) / "c1@eth0.json")
    with pytest.raises(DamagedError, match=re.escape(f"({why}")) as caught:
        records.read("c1", "eth0")
    assert [str(one) for one in records.all()] == [str(caught.value)]
    records.set_aside(caught.value)
    assert records.read("c1", "eth0") is None


def test_a_record_of_the_largest_size_is_read(records: Records) -> None:
    records.write(SIMPLE)
    path = Path(records.directory) / "c1@eth0.json"
    with path.open("ab") as file:
        file.write(b" " * (RECORD_MAX - path.stat().st_size))
    assert records.read("c1", "eth0") == SIMPLE


def test_a_record_is_read_and_parsed_apart(records: Records) -> None:
    """The agent parses a large one in a thread."""
    records.write(SIMPLE)
    assert records.data("c1", "eth1") is None
    data = records.data("c1", "eth0")
    assert data is not None
    assert records.parsed("c1", "eth0", data) == SIMPLE
    for name in (("c2", "eth0"), ("c1", "eth1")):
        with pytest.raises(DamagedError, match=r"@.*\(it is another container's\)") as caught:
            records.parsed(*name, data)
        assert "@".join(name) in str(caught.value)


def _places(data: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [at, *(place for key, value in inner for place in _places(value, (*at, key)))]


@given(RECORDS, JSON, st.data())
def test_damage_anywhere_is_told_or_harmless(record: Record, value: Any, data: st.DataObject) -> None:
    damaged = {"whole": copy.deepcopy(record.to_json())}  # it shares its configurations with the record
    place = ("whole", *data.draw(st.sampled_from(_places(damaged["whole"]))))
    holder: Any = damaged
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = value
    try:
        again = Record.of(damaged["whole"])
    except (ValueError, TypeError, CniError):
        return
    assert Record.of(json.loads(json.dumps(again.to_json()))) == again


def test_a_damaged_record_is_no_other_containers_business(records: Records) -> None:
    records.write(SIMPLE)
    records.write(replace(SIMPLE, container_id="c2"))
    (Path(records.directory) / "c1@eth0.json").write_text("{")
    assert [record.container_id for record in records] == ["c2"]
    damage, whole = records.all()
    assert isinstance(damage, DamagedError) and isinstance(whole, Record)


# --- two processes --------------------------------------------------------------------------------------------------


def _write_often(directory: str, netns: str, times: int) -> None:
    records = Records(directory)
    for count in range(times):
        records.begin(replace(SIMPLE, netns=netns * (count % 7 + 1)))


def test_two_writers_and_a_reader_never_meet_half_a_record(records: Records) -> None:
    records.write(SIMPLE)
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_often, args=(records.directory, who * 3000, 300)) for who in "ab"]
    for writer in writers:
        writer.start()
    reads = 0
    while any(writer.is_alive() for writer in writers):
        record = records.read("c1", "eth0")
        assert record is not None and len(set(record.netns.removeprefix("/netns"))) <= 1
        reads += 1
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert reads and files(records) == ["c1@eth0.json"]
