"""`genie install`: its options, and the files for direct mode."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from genie.node import files, install, wanted
from genie.node.files import Node
from tests.rigs.api import kubeconfig
from tests.rigs.install import CONF, main, tree


def test_the_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        install.main(["--help"])
    output = capsys.readouterr().out
    for part in ("examples:", "genie install --direct", "--remove", "00-genie.conflist", "root"):
        assert part in output


def test_direct_mode_takes_a_way_to_the_api_server(
    machine: Node, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    before = tree(machine)
    assert main(machine, "--direct") == 1
    assert "no way to the API server: give kubernetes.kubeconfig" in capfd.readouterr().err
    (tmp_path / "my.conf").write_text(json.dumps({**CONF, "kubernetes": {"kubeconfig": str(tmp_path / "none")}}))
    assert main(machine, "--direct", "--conf", str(tmp_path / "my.conf")) == 1
    assert f"cannot read {tmp_path}/none" in capfd.readouterr().err
    assert tree(machine) == before
    (tmp_path / "none").write_text(json.dumps(kubeconfig("https://10.0.0.1:6443")))
    assert main(machine, "--direct", "--conf", str(tmp_path / "my.conf")) == 0
    assert files.confs(machine.conf_dir)[0] == "00-genie.conflist"
    assert main(machine, "--remove") == 0 and tree(machine) == before
    assert main(machine, "--direct", "--no-kubeconfig") == 0


@pytest.mark.parametrize("names", ["a b", "kube-system/", "blue,a/b/c", ["side@"], ["x"] * 40])
def test_a_default_that_no_pod_could_get_is_refused(
    machine: Node, tmp_path: Path, capfd: pytest.CaptureFixture[str], names: str | list[str]
) -> None:
    before = tree(machine)
    (tmp_path / "my.conf").write_text(json.dumps({**CONF, "default_plugin": names}))
    assert main(machine, "--direct", "--no-kubeconfig", "--conf", str(tmp_path / "my.conf")) == 1
    assert '"error": "genie.conf: default_plugin' in capfd.readouterr().err
    assert tree(machine) == before


def test_direct_mode_installs_a_script_of_this_python() -> None:
    script = wanted.plugin(direct=True).decode()
    assert script.startswith("#!/")
    compile(script, "genie", "exec")


def test_the_launcher_of_direct_mode_needs_no_environment_and_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "genie"
    path.write_text(wanted.launcher())
    path.chmod(0o755)
    asked = {"CNI_COMMAND": "VERSION", "PYTHONPATH": "/nowhere", "PYTHONHOME": "/nowhere"}
    done = subprocess.run(
        [path], env=asked, input=b'{"cniVersion": "1.0.0"}', capture_output=True, check=True, cwd=tmp_path
    )
    assert json.loads(done.stdout)["cniVersion"] == "1.0.0"
    assert list(tmp_path.iterdir()) == [path]
