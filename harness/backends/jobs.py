"""`harness job`, `harness job collect` and, in the pods, `harness job run`: the suite on Kubernetes itself."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

import yaml

from harness.backends import existing
from harness.cluster import suite_job
from harness.cluster.real import client
from harness.cluster.suite_job import NAMESPACE, Shard, Suite
from harness.download import SCENARIOS
from harness.exits import ORDER, Exit
from harness.objects import ApiError, Objects
from harness.report.merge import merge
from harness.report.reading import BadReport
from harness.waiting import until_nothing

_RESULTS = Path("/tmp/sonobuoy/results")
REPORT = Path("/tmp/report")  # in the pods


def write(options: argparse.Namespace) -> int:
    """Print the manifest; returns the exit code."""
    try:
        files = _files([*options.scenarios, *options.profile])
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return Exit.USAGE
    arguments = [f"{suite_job.FILES}/{path.name}" for path in options.scenarios]
    arguments += [part for path in options.profile for part in ("--profile", f"{suite_job.FILES}/{path.name}")]
    arguments += options.arguments
    if options.sonobuoy:
        if files:
            print("--sonobuoy: expected no files: name files of the image, after `--`", file=sys.stderr)
            return Exit.USAGE
        things = [suite_job.sonobuoy(options.image, options.genie_image, arguments)]
    else:
        suite = Suite(
            image=options.image, shards=options.shards, genie_image=options.genie_image, deadline=options.deadline,
            arguments=tuple(arguments), files=files,
        )  # fmt: skip
        things = suite_job.objects(suite)
    things = json.loads(json.dumps(things))  # nothing shared, so YAML has no aliases
    print(yaml.safe_dump_all(things, sort_keys=False, width=120), end="")
    return Exit.PASSED


def _files(paths: Sequence[Path]) -> dict[str, str]:
    """Files by name.

    Raises OSError: one cannot be read.
    Raises ValueError: two have the same name.
    """
    found: dict[str, str] = {}
    for path in paths:
        if path.name in found:
            raise ValueError(f"{path}: expected files with different names, two are {path.name}")
        found[path.name] = path.read_text(encoding="utf-8")
    return found


def run(options: argparse.Namespace) -> int:
    """Run one shard in a pod and save its report; returns 0 when that is done, whatever the report is."""
    number, report = suite_job.index() + 1, REPORT
    arguments = [*options.arguments]
    if not any(argument.endswith((".yaml", ".yml")) and not argument.startswith("-") for argument in arguments[:1]):
        arguments.insert(0, str(SCENARIOS))
    if options.shards > 1:
        arguments += ["--shard", f"{number}/{options.shards}"]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    code, log = _shown([*command, "--backend", "existing", "--report", str(report)])
    archive = suite_job.packed(report) if (report / "report.json").is_file() else b""
    if options.sonobuoy:
        _hand_over(report)
        return Exit.PASSED
    shard = Shard(number=number, code=code, log=log, archive=archive)
    suite_job.save(Objects(client(existing.kubeconfig())), shard)
    return Exit.PASSED


def _shown(command: Sequence[str]) -> tuple[int, str]:
    """Run a command; returns its exit code and its output, which also goes to this process's."""
    lines = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
        assert running.stdout is not None
        for line in running.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    return running.returncode, "".join(lines)


def _hand_over(report: Path) -> None:
    """Give Sonobuoy's worker the report: an archive, and the file `done` with its path."""
    _RESULTS.mkdir(parents=True, exist_ok=True)
    report.mkdir(exist_ok=True)
    with tarfile.open(_RESULTS / "report.tar.gz", "w:gz") as archive:
        archive.add(report, "report")
    (_RESULTS / "done").write_text(str(_RESULTS / "report.tar.gz"))


def collect(options: argparse.Namespace) -> int:
    """Wait for the Job, and merge the shards' reports; returns the exit code of the whole run."""
    kubeconfig = existing.kubeconfig()
    api = Objects(client(kubeconfig))
    try:
        wanted = suite_job.shards(api)
        if left := until_nothing(lambda: suite_job.unfinished(api), options.wait, longest=5.0):
            print(f"waited {options.wait:g} s: {left}", file=sys.stderr)
        found = sorted(suite_job.saved(api), key=lambda each: each.number)
    except ApiError as error:
        print(f"{kubeconfig}: {error}", file=sys.stderr)
        return Exit.BROKEN
    return _merged(found, wanted, options.out)


def _merged(found: Sequence[Shard], wanted: int, out: Path) -> int:
    """Write one report of all shards."""
    codes = [Exit(each.code) if each.code in {*Exit} else Exit.BROKEN for each in found]
    directories = []
    for shard in found:
        if shard.archive:
            directories.append(suite_job.unpacked(shard, out / "shards" / str(shard.number)))
        else:
            print(f"shard {shard.number}/{wanted} wrote no report:\n{shard.log}", file=sys.stderr)
    for number in sorted(set(range(1, wanted + 1)) - {each.number for each in found}):
        print(f"shard {number}/{wanted} has saved nothing: kubectl -n {NAMESPACE} get pods,events", file=sys.stderr)
        codes.append(Exit.BROKEN)
    if directories:
        try:
            report = merge(directories, out)
        except BadReport as error:
            print(error, file=sys.stderr)
            return Exit.BROKEN
        codes.append(Exit(report.exit.code))
        print(f"{report.totals}: {out / 'index.html'}")
    return min(codes, key=ORDER.index)
