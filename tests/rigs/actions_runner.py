"""The `run` steps of a workflow's job or of a composite action, one after the other, as a hosted runner runs them.

Only what this project's files use: expressions with inputs, matrix, env, github, runner and outputs of steps; `if`;
`uses: ./` for an action of the checkout. Other actions are not run; `Done` names them.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

_EXPRESSION = re.compile(r"\$\{\{(.*?)\}\}", re.DOTALL)
_TOKEN = re.compile(r"'(?:[^']|'')*'|&&|\|\||==|!=|!|[()]|[A-Za-z_][\w.\-]*(?:\(\))?|\d+|\s+|.")
_WORDS = {"&&": " and ", "||": " or ", "!": " not ", "always()": "True", "success()": "ok", "cancelled()": "False"}


@dataclass(frozen=True)
class Done:
    """A step that ran, or that only a real runner can run."""

    name: str
    status: int | None  # None: it did not run here
    output: str = ""


@dataclass
class Runner:
    """A runner with a checkout, and a home directory of its own."""

    checkout: Path
    home: Path
    within: Sequence[str] = ()  # a command that runs scripts elsewhere: docker exec …
    values: Mapping[str, str] = field(default_factory=dict)  # `inputs.backend`, `matrix.shard`, …
    environment: Mapping[str, str] = field(default_factory=dict)
    done: list[Done] = field(default_factory=list)
    summary: str = ""
    outputs: dict[str, str] = field(default_factory=dict)  # of a composite action

    def job(self, workflow: str, name: str) -> bool:
        """Run a job of a workflow; returns whether all steps succeeded."""
        data: Any = yaml.safe_load((self.checkout / ".github/workflows" / workflow).read_text())
        environment = {**self.environment, **(data.get("env") or {})}
        return replace(self, environment=environment)._steps(data["jobs"][name]["steps"], self)

    def action(self, inputs: Mapping[str, str], folder: Path | None = None) -> bool:
        """Run a composite action; returns whether all steps succeeded."""
        place = folder or self.checkout
        data: Any = yaml.safe_load((place / "action.yml").read_text())
        assert set(inputs) <= set(data["inputs"]), f"{set(inputs) - set(data['inputs'])} is no input of the action"
        usual = {name: str(each.get("default", "")) for name, each in data["inputs"].items()} | dict(inputs)
        values = {f"inputs.{name}": value for name, value in usual.items()} | {"github.action_path": str(place)}
        inner = replace(self, values={**self.values, **values})
        went_well = inner._steps(data["runs"]["steps"], self)
        self.outputs = {name: inner._filled(each["value"]) for name, each in data["outputs"].items()}
        return went_well

    def _steps(self, steps: Sequence[Mapping[str, Any]], shown: Runner) -> bool:
        went_well = True
        for step in steps:
            if not self._wanted(str(step.get("if", "success()")), went_well):
                continue
            done = self._step(step)
            shown.summary += self.summary
            self.summary = ""
            if done.status != 0 and done.status is not None:
                went_well = False
        return went_well

    def _step(self, step: Mapping[str, Any]) -> Done:
        name = self._filled(str(step.get("name") or step.get("id") or step.get("uses") or step["run"]))
        if step.get("uses") == "./":
            inner = replace(self, values=self.values)
            went_well = inner.action({key: self._filled(str(value)) for key, value in step.get("with", {}).items()})
            self.summary, done = inner.summary, Done(name, int(not went_well))
        elif "run" not in step:
            done = Done(name, None)
        else:
            done = self._script(name, step)
        self.done.append(done)
        return done

    def _script(self, name: str, step: Mapping[str, Any]) -> Done:
        files = {key: self.home / f"{key}-{len(self.done)}" for key in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
        script = self.home / f"script-{len(self.done)}.sh"
        script.write_text(self._filled(str(step["run"])))
        for path in files.values():
            path.write_text("")
        wanted = {**self.environment, **(step.get("env") or {})}
        environment = {key: self._filled(str(value)) for key, value in wanted.items()}
        environment |= {key: str(path) for key, path in files.items()} | {"RUNNER_TEMP": str(self.home)}
        options = ("-eo", "pipefail") if step.get("shell") == "bash" else ("-e",)
        shell = ("bash", "--noprofile", "--norc", *options, str(script))
        where = ("env", f"--chdir={self.checkout}", *(f"{key}={value}" for key, value in environment.items()), *shell)
        ran = subprocess.run(
            (*self.within, *where), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
            cwd=self.checkout, env=clean(self.home),
        )  # fmt: skip
        self.summary = files["GITHUB_STEP_SUMMARY"].read_text()
        outputs = dict(line.split("=", 1) for line in files["GITHUB_OUTPUT"].read_text().splitlines())
        known = {f"steps.{step['id']}.outputs.{key}": value for key, value in outputs.items()} if "id" in step else {}
        self.values = {**self.values, **known}
        return Done(name, ran.returncode, ran.stdout)

    def _filled(self, text: str) -> str:
        return _EXPRESSION.sub(lambda found: str(self._value(found[1], ok=True)), text)

    def _wanted(self, condition: str, ok: bool) -> bool:
        text = found[1] if (found := _EXPRESSION.fullmatch(condition.strip())) else condition
        always = any(word in text for word in ("always()", "cancelled()", "failure()", "success()"))
        return bool(self._value(text, ok=ok)) and (ok or always)

    def _value(self, expression: str, *, ok: bool) -> Any:
        """The value of an expression; a name that is not known is an empty text, as on a runner."""
        known = {"runner.temp": str(self.home), "github.workspace": str(self.checkout), **self.values}
        words = []
        for token in _TOKEN.findall(expression):
            if token.startswith("'") or token.isdigit() or token.isspace() or token in ("(", ")", "==", "!="):
                words.append(token)
            elif token in _WORDS:
                words.append(_WORDS[token])
            elif re.fullmatch(r"[A-Za-z_][\w.\-]*", token):
                words.append(repr(known.get(token, "")))
            else:
                raise ValueError(f"this runner does not know {token!r} of {expression!r}")
        return eval("".join(words).strip(), {"ok": ok})


def clean(home: Path) -> dict[str, str]:
    """The environment of a new login: nothing of this process's but the ways to programs and to package registries."""
    kept = ("PATH", "LANG", "GENIE_CNI_BIN", "KUBEBUILDER_ASSETS", "GENIE_MIRROR", "GENIE_NODE_IMAGE")
    ways = {key: value for key, value in os.environ.items() if key in kept or key.startswith(("PIP_", "UV_", "SSL_"))}
    return {**ways, "HOME": str(home), "CI": "true", "GITHUB_ACTIONS": "true"}
