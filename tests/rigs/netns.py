"""Network namespaces for tests.

A namespace has no name and no mount: it exists as long as an open file of this process. So tests can run in parallel
and leave nothing on the machine, even if they are killed.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
CLONE_NEWNET = 0x40000000


class Namespace:
    """A network namespace, entered by threads that end in it."""

    def __init__(self) -> None:
        self._file = -1
        self._in_thread(self._make)
        self.path = f"/proc/{os.getpid()}/fd/{self._file}"
        self.ip("link set lo up")

    def _make(self) -> None:
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        self._file = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def _in_thread(self, work: Callable[[], T]) -> T:
        done: list[T] = []
        failed: list[BaseException] = []

        def body() -> None:
            try:
                done.append(work())
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=body)
        thread.start()
        thread.join()
        if failed:
            raise failed[0]
        return done[0]

    def run(self, work: Callable[[], T]) -> T:
        """Run a function in the namespace; processes that it starts are in it, too."""

        def enter() -> T:
            if ctypes.CDLL(None, use_errno=True).setns(self._file, CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            return work()

        return self._in_thread(enter)

    def ip(self, *commands: str) -> str:
        """Run `ip` with each of the commands; returns the output."""

        def each() -> str:
            output = ""
            for command in commands:
                done = subprocess.run(["ip", *command.split()], capture_output=True, text=True, check=False)
                assert done.returncode == 0, f"ip {command}: {done.stderr}"
                output += done.stdout
            return output

        return self.run(each)

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
