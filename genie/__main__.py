"""genie's entry point: with CNI_COMMAND in the environment a CNI plugin in direct mode, otherwise the command line.

The two share only this file: an ADD does not import the argument parser or the commands.
"""

from __future__ import annotations

import os
import sys


def main(argv: list[str] | None = None) -> int:
    """Serve the runtime or run a command; returns the exit status."""
    if "CNI_COMMAND" in os.environ and not (argv or sys.argv[1:]):
        return plugin()
    from genie import cli

    return cli.main(sys.argv[1:] if argv is None else argv)


def plugin() -> int:
    """One CNI call in direct mode: delegates are child processes, and the API server is read during the call."""
    import json

    from genie import config, kube
    from genie.cni.errors import CniError
    from genie.cni.execute import SubprocessExecutor, run_sync
    from genie.request import Request
    from genie.serve import serve
    from genie.verbs.context import NoGuard

    stdin = b"" if sys.stdin is None or sys.stdin.isatty() else sys.stdin.buffer.read()
    conf = None
    try:
        conf = config.read(stdin)
    except CniError:
        pass  # `serve` gets the same error, and reports it in the verb's form
    asker = kube.DirectKube(conf or config.defaults())
    executor = SubprocessExecutor()
    guard = NoGuard() if conf and conf.agent.policy else None
    reply = run_sync(serve(Request(env=dict(os.environ), stdin=stdin), asker, executor, conf, guard=guard))
    executor.close()
    sys.stdout.buffer.write(reply.stdout)
    sys.stdout.buffer.flush()
    failed = reply.status or "annotate" in reply.story
    if conf is not None and (failed or conf.log_level in ("info", "debug")):
        log(json.dumps(reply.story), conf.log_file)
    return reply.status


def log(line: str, path: str) -> None:
    """Write one line to genie.conf's log_file, otherwise to standard error, which runtimes log with a failure."""
    if path:
        try:
            with open(path, "a", encoding="utf-8") as file:
                file.write(line + "\n")
            return
        except OSError:
            pass
    sys.stderr.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
