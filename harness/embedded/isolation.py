"""Private namespaces for a run: the host does not see the run, and nothing remains after it.

The program to run (mostly pytest) becomes a grandchild of the original process:

    the outer process     on the host: waits, hands signals on, gives the exit status back
     └ the keeper         process 1 of a new pid namespace: reaps; when it ends, the kernel ends all the rest
        └ the program     with the marker in its environment, free to make nodes, bridges and mounts

If any of the three is killed, by any signal, the keeper ends, and with it every process, interface and mount of the
run. The keeper outlives the program only if the program called `keep`. A caller who is not root gets a user namespace
and is root in it, if the machine allows that.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from harness.embedded import linux

MARKER = "GENIE_ISOLATION"  # in the program's environment: the run's directory
KEEPER = "GENIE_ISOLATION_KEEPER"  # and the keeper's process ID on the host
#: Mount points for the run's directory: they exist on every machine, and a test run does not need their contents.
_PLACES = ("/dev/shm", "/mnt", "/media", "/srv")
_KEPT = "keep"
_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


class Refused(Exception):
    """The machine does not allow the namespaces; the message has the reason and advice."""


def inside() -> Path | None:
    """The directory of the run that this process is in, or None on the host."""
    return Path(place) if (place := os.environ.get(MARKER)) else None


def keep() -> int:
    """Keep the isolation after its program ends, until the process with the returned ID is killed."""
    place = inside()
    if place is not None:
        (place / _KEPT).touch()
    return int(os.environ.get(KEEPER, "0"))


def enter(argv: Sequence[str]) -> NoReturn:
    """Replace this process by one that runs `argv` in isolation and exits with its status."""
    root = Path(__file__).resolve().parents[2]
    setup = f"import sys; sys.path.insert(0, {str(root)!r})"
    code = f"{setup}; from harness.embedded.isolation import main; main(sys.argv[1:])"
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-IS", "-c", code, *argv])


def probe() -> None:
    """Try in a child process whether isolation is possible here.

    Raises Refused: it is not.
    """
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        try:
            _unshare()
            os._exit(0)
        except BaseException as error:
            os.write(write, str(error).encode())
            os._exit(1)
    os.close(write)
    with os.fdopen(read) as pipe:
        message = pipe.read()
    _, status = os.waitpid(child, 0)
    if status != 0:
        raise Refused(message or "the test of it ended with an error")


def main(argv: list[str]) -> NoReturn:
    """The outer process."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {*_PASSED_ON, signal.SIGCHLD})
    try:
        _unshare()
    except Refused as error:
        sys.exit(f"genie: {error}")
    outer = os.pidfd_open(os.getpid())
    numbers, statuses = os.pipe(), os.pipe()  # the keeper's number to it, the program's status from a keeper that stays
    if (keeper := os.fork()) == 0:
        os.close(numbers[1])
        os.close(statuses[0])
        _keep(argv, outer, numbers[0], statuses[1])
    os.write(numbers[1], f"{keeper}\n".encode())
    os.close(statuses[1])
    status = _attend(keeper, pipe=statuses[0])
    os._exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status))


def _unshare() -> None:
    """Create new namespaces for this process; the pid namespace is for its children.

    Raises Refused: the kernel refuses.
    """
    uid, gid = os.geteuid(), os.getegid()
    namespaces = linux.CLONE_NEWPID | linux.CLONE_NEWNS | linux.CLONE_NEWNET
    try:
        linux.unshare(namespaces | (linux.CLONE_NEWUSER if uid else 0))
        if uid:
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
            Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
        linux.mount("none", "/", flags=linux.MS_REC | linux.MS_PRIVATE)
    except OSError as error:
        raise Refused(_advice(uid, error)) from error


def _advice(uid: int, error: OSError) -> str:
    if uid == 0:
        return (
            f"no namespaces of its own for the embedded cluster ({error.strerror}): this root lacks CAP_SYS_ADMIN,"
            " as in a container that is not privileged; run it in a privileged one, or choose another backend"
        )
    return (
        f"no user namespace for the embedded cluster ({error.strerror}): run as root, or allow them"
        " (sysctl kernel.unprivileged_userns_clone=1, user.max_user_namespaces=10000,"
        " kernel.apparmor_restrict_unprivileged_userns=0), or choose another backend"
    )


def _keep(argv: list[str], outer: int, number: int, statuses: int) -> NoReturn:
    """The keeper: process 1 of the isolation."""
    linux.die_with_parent(signal.SIGKILL)
    if _ended(outer):
        os._exit(1)  # before the line above
    try:
        place = _furnish()
    except OSError as error:
        os.write(2, f"genie: cannot set up the embedded cluster's namespaces: {error}\n".encode())
        os._exit(1)
    os.environ.update({MARKER: place, KEEPER: os.read(number, 32).decode().strip()})
    if (program := os.fork()) == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        try:
            os.execvp(argv[0], argv)
        except OSError as error:
            os.write(2, f"genie: {argv[0]}: {error.strerror}\n".encode())
        os._exit(127)
    status = _attend(program)
    # Process 1 cannot kill itself by a signal, so it reports the end of the program as a status.
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
    if (Path(place) / _KEPT).exists():
        _stay(statuses, code)
    os._exit(code)


def _stay(statuses: int, code: int) -> None:
    """Release the outer process, and reap children until this process is killed."""
    linux.die_with_parent(0)
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    os.write(statuses, bytes([code]))
    while signal.sigwait({*_PASSED_ON, signal.SIGCHLD}) == signal.SIGCHLD:
        _reaped(-1)


def _ended(pidfd: int) -> bool:
    import select

    return bool(select.select([pidfd], [], [], 0)[0])


def _furnish() -> str:
    """Mount /proc and the run's directory."""
    linux.mount("proc", "/proc", "proc", linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC)
    place = next(path for path in _PLACES if Path(path).is_dir())
    linux.mount("genie", place, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=1777")
    run = Path(place) / "genie-run"
    run.mkdir(mode=0o755)
    return str(run)


def _attend(child: int, pipe: int | None = None) -> int:
    """Wait for a child, reap others, and forward signals; returns the wait status of the child.

    With `pipe`, it may instead return the exit status that comes through that pipe.
    """
    waited = {*_PASSED_ON, signal.SIGCHLD}
    if pipe is not None:
        waited.add(signal.SIGIO)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGIO})
        fcntl.fcntl(pipe, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(pipe, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    while True:
        info = signal.sigwaitinfo(waited)
        if info.si_signo == signal.SIGIO and pipe is not None:
            with suppress(BlockingIOError):
                if code := os.read(pipe, 1):
                    return code[0] << 8
        elif info.si_signo != signal.SIGCHLD:
            # Signals from a terminal (si_code > 0: from the kernel) also reach the program directly.
            if info.si_code <= 0:
                _send(child, info.si_signo)
        elif (status := _reaped(child)) is not None:
            return status


def _reaped(child: int) -> int | None:
    """Reap all exited processes; returns the wait status of `child` if it is one of them."""
    with suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            if found[0] == child:
                return found[1]
    return None


def _send(to: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(to, number)
