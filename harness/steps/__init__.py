"""Steps: the actions of scenarios.

A step is a small frozen model with one method that acts (`base.py`) on the running scenario (`scene.py`). To add one,
write the model in the module that fits, and list it here. Its docstring's first paragraph, its fields' descriptions and
its example are its documentation: `python -m harness checks` prints them.
"""

from __future__ import annotations

from harness.steps.base import STEPS as STEPS
from harness.steps.expect import Expect
from harness.steps.flows import StaysConnected
from harness.steps.objects import Apply, Remove
from harness.steps.pods import Annotate, Churn, Create, Delete, Recreate
from harness.steps.sandboxes import CollectGarbage, EndSandbox, LoseSandbox, Reboot, Tamper
from harness.steps.states import (
    WithApiServerAway,
    WithDefinitionAway,
    WithNetworkRestart,
    WithPolicies,
    WithRestart,
    WithRollingUpdate,
    WithSettings,
)

STEPS |= {
    step.key: step
    for step in (
        Create,
        Delete,
        Recreate,
        Churn,
        EndSandbox,
        LoseSandbox,
        CollectGarbage,
        Reboot,
        Tamper,
        Annotate,
        Apply,
        Remove,
        Expect,
        WithApiServerAway,
        WithSettings,
        WithRestart,
        WithRollingUpdate,
        WithNetworkRestart,
        WithPolicies,
        WithDefinitionAway,
        StaysConnected,
    )
}
for _step in STEPS.values():  # steps contain steps, so the models can be completed only when all are known
    _step.model_rebuild(force=True)
