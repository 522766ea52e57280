"""The entry to the verbs: a `Request` in, a `Reply` out, also after an error.

The code below is the same in the agent and in direct mode: `serve` gets an `Executor` to run plugins and a `Kube` to
ask the API server. All of it is `async` for the agent; in direct mode nothing ever suspends (see
`genie.cni.execute.run_sync`). Each verb's modules are imported only for that verb.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from genie import config
from genie.cni import version
from genie.cni.errors import CniError, Code
from genie.cni.execute import Executor
from genie.config import Conf
from genie.kube import Kube
from genie.request import Reply, Request, permit
from genie.verbs.context import Context
from genie.verbs.trace import RecordingExecutor, StepTimes

if TYPE_CHECKING:
    from genie.select.least_loaded import Reading
    from genie.verbs.context import Guard


async def serve(
    request: Request,
    kube: Kube,
    executor: Executor,
    conf: Conf | None = None,
    earlier: Reading | None = None,
    *,
    guard: Guard | None = None,
) -> Reply:
    """Serve one call of the runtime. Never raises: errors become a CNI error object in the reply.

    conf: genie.conf, if the caller has parsed the request's standard input already.
    earlier: an earlier reading of the interfaces' counters, if the caller keeps them (see select/least_loaded.py).
    guard: sets network policies; without one, there are none.
    """
    started = time.monotonic()
    steps = StepTimes()
    story: dict[str, Any] = {"verb": request.command, "pod": request.pod_name, "container": request.container_id}
    watched = RecordingExecutor(executor, steps)
    spoken = conf.cni_version if conf else request.spoken
    try:
        if request.command == "VERSION":
            return Reply(status=0, stdout=json.dumps(versions(request.spoken)).encode(), story=story)
        request.validate()
        conf = conf or config.read(request.stdin)
        permit(request, conf)
        answer = await _carry_out(
            Context(
                request=request, conf=conf, kube=kube, executor=watched, story=story, steps=steps, earlier=earlier,
                guard=guard,
            )
        )  # fmt: skip
        stdout, exit_status = (json.dumps(answer).encode() if answer is not None else b""), 0
    except CniError as error:
        story["error"] = str(error)
        stdout, exit_status = json.dumps(error.to_json(spoken)).encode(), 1
    except Exception as error:  # a bug in genie must still become one CNI error, not a traceback on stdout
        story["error"] = f"{type(error).__name__}: {error}"
        bug = CniError(Code.INTERNAL, f"genie failed: {type(error).__name__}: {error}", "please report this as a bug")
        stdout, exit_status = json.dumps(bug.to_json(spoken)).encode(), 1
    story["seconds"] = round(time.monotonic() - started, 6)
    story["delegates"] = watched.calls
    steps.done("answer")
    story["steps"] = {step: round(ms, 3) for step, ms in steps.ms.items()}
    return Reply(status=exit_status, stdout=stdout, story=story)


def versions(spoken: str) -> Mapping[str, Any]:
    """VERSION: answers in the request's version (specification, section 2, "VERSION")."""
    return {"cniVersion": spoken, "supportedVersions": list(version.SUPPORTED)}


async def _carry_out(call: Context) -> Mapping[str, Any] | None:
    match call.request.command:
        case "ADD":
            from genie.verbs.add import add

            return await add(call)
        case "DEL":
            from genie.verbs.delete import delete

            await delete(call)
        case "CHECK":
            from genie.verbs.check import check

            await check(call)
        case "GC":
            from genie.verbs.gc import gc

            await gc(call)
        case "STATUS":
            from genie.verbs.status import status

            await status(call)
    return None
