"""The door: a `Request` in, a `Reply` out, whatever happens between.

Nothing from here down knows whether it runs in the agent or alone: plugins are run by the `Executor`, the API server
asked by the `Kube` that `serve` is given. All is `async` for the agent's sake; in direct mode nothing ever waits (see
`genie.cni.execute.run_sync`), and what only one verb needs is imported when that verb comes.
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


async def serve(
    request: Request, kube: Kube, executor: Executor, conf: Conf | None = None, earlier: Reading | None = None
) -> Reply:
    """Serve one call of the runtime. Never raises: what goes wrong is a CNI error object in the reply.

    Args:
        conf: genie.conf, where the caller has parsed the request's standard input already.
        earlier: an earlier reading of the interfaces' counters, where the caller keeps them (see
            select/least_loaded.py).
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
            Context(request=request, conf=conf, kube=kube, executor=watched, story=story, steps=steps, earlier=earlier)
        )
        stdout, exit_status = (json.dumps(answer).encode() if answer is not None else b""), 0
    except CniError as error:
        story["error"] = str(error)
        stdout, exit_status = json.dumps(error.to_json(spoken)).encode(), 1
    except Exception as error:  # a bug of genie's own must still be one CNI error, not a traceback on stdout
        story["error"] = f"{type(error).__name__}: {error}"
        bug = CniError(Code.INTERNAL, f"genie failed: {type(error).__name__}: {error}", "please report this as a bug")
        stdout, exit_status = json.dumps(bug.to_json(spoken)).encode(), 1
    story["seconds"] = round(time.monotonic() - started, 6)
    story["delegates"] = watched.calls
    steps.done("answer")
    story["steps"] = steps.ms
    return Reply(status=exit_status, stdout=stdout, story=story)


def versions(spoken: str) -> Mapping[str, Any]:
    """VERSION: answers in the version that was asked in (specification, section 2, "VERSION")."""
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
