"""`python -m tests.harness.workflows ci.yaml lint`: jobs of a workflow in a fresh clone, with a fresh home directory.

Runs each `run` step, and `uses: ./`. What other actions would do, it does not: their steps are listed. With `--image`,
the steps run in a privileged container of that image, which needs Python 3.11 with venv, git, bash and iproute2.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.rigs.actions_runner import Runner, clean

ROOT = Path(__file__).parents[3]


def main() -> int:
    """Returns 1 if a step of a job fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.harness.workflows", description=__doc__)
    parser.add_argument("workflow", help="a file of .github/workflows")
    parser.add_argument("jobs", nargs="+", metavar="JOB")
    parser.add_argument("--image", help="run the steps in a container of this image")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="matrix.shard=1, for instance")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="genie-workflows-") as folder:
        runner = _runner(Path(folder), options)
        try:
            failed = [job for job in options.jobs if not runner.job(options.workflow, job)]
        finally:
            if runner.within:
                subprocess.run(["docker", "rm", "--force", runner.within[2]], check=False, stdout=subprocess.DEVNULL)
    for done in runner.done:
        print(f"{'not run here' if done.status is None else done.status}\t{done.name.splitlines()[0]}")
        if done.status:
            print(done.output)
    print(runner.summary)
    return 1 if failed else 0


def _runner(folder: Path, options: argparse.Namespace) -> Runner:
    clone, home = folder / "clone", folder / "home"
    subprocess.run(["git", "clone", "-q", ROOT, clone], check=True)
    home.mkdir()
    values = dict(each.split("=", 1) for each in options.set)
    if not options.image:
        return Runner(checkout=clone, home=home, values=values)
    name = f"genie-workflows-{os.getpid()}"
    variables = [f"--env={key}={value}" for key, value in clean(home).items() if key != "PATH"]
    places = [f"--volume={folder}:{folder}", *(f"--volume={place}:{place}:ro" for place in _given())]
    command = ["docker", "run", "--detach", "--privileged", "--name", name, *variables, *places, options.image]
    subprocess.run([*command, "sleep", "infinity"], check=True, stdout=subprocess.DEVNULL)
    return Runner(checkout=clone, home=home, values=values, within=("docker", "exec", name))


def _given() -> list[str]:
    """Directories of this machine that variables of the environment name, and that a container needs, too."""
    names = ("GENIE_CNI_BIN", "KUBEBUILDER_ASSETS", "GENIE_MIRROR", "SSL_CERT_FILE")
    named = [os.environ.get(key, "") for key in names]
    return [place for text in named for place in text.split(os.pathsep) if place and Path(place).exists()]


if __name__ == "__main__":
    sys.exit(main())
