"""Runs the tests on mutants: `python -m tests.mutate`, or for some, `python -m tests.mutate "genie.select.selection*"`.

mutmut makes the mutants, and `python -m tests.mutants` reports on them. Only the running is done here: mutmut starts
pytest for each of some 5,000 mutants, which takes hours. Here pytest collects the tests once, and a child process is
forked for each mutant. It runs the tests that reach the mutant's function, and first those that killed others of it.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import resource
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

SURVIVED, KILLED, NO_TESTS, SUSPICIOUS, TIMEOUT = 0, 1, 33, 35, 36  # as mutmut writes them
SECONDS = 3
"""CPU time that a test may take in addition to twenty times what it takes without a mutant; more is an endless loop."""
MOST_SECONDS = 300
"""CPU time of a mutant, and of each process that its tests start."""
ASLEEP = 900
"""Seconds after which a mutant that waits for something is killed."""
MEMORY = 4 << 30
"""The address space of a mutant, in bytes."""


class Mutation:
    """A pytest plugin: instead of one run of the tests, a run for each mutant.

    names: of the mutants. results: what came of each, by its name. save: keeps the results so far.
    """

    def __init__(self, names: Sequence[str], jobs: int, save: Callable[[Mapping[str, int]], None]) -> None:
        self.names = names
        self.jobs = jobs
        self.save = save
        self.results: dict[str, int] = {}
        self._reaching: defaultdict[str, list[tuple[pytest.Item, float]]] = defaultdict(list)
        self._kills: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self._unmutated(session)
        running = self._start("", [(item, SECONDS) for item in session.items])
        self._finish(running)
        if self.results.pop("") != SURVIVED:
            raise pytest.UsageError("a test fails when it runs a second time, without a mutant")
        for name in self.names:
            if len(running) == self.jobs:
                self._finish(running)
            tests = self._tests(name)
            if tests:
                running.update(self._start(name, tests))
            else:
                self.results[name] = NO_TESTS
        while running:
            self._finish(running)
        self.save(self.results)
        return True

    def _unmutated(self, session: pytest.Session) -> None:
        """Run each test on the code as it is: all must pass. Keep the functions that each one reaches."""
        from mutmut.mutation.trampoline import set_mutant_under_test
        from mutmut.state import state

        set_mutant_under_test("stats")
        for item in session.items:
            start = time.process_time()
            for report in runtestprotocol(item, log=False, nextitem=None):
                if report.failed:
                    raise pytest.UsageError(f"{item.nodeid} fails without a mutant:\n{report.longreprtext}")
            taken = time.process_time() - start
            for function in state()._stats:
                self._reaching[function].append((item, taken))
            state()._stats.clear()

    def _tests(self, name: str) -> list[tuple[pytest.Item, float]]:
        """The tests for a mutant: those that killed others of its function, then the fastest."""
        function = name.rpartition("__mutmut_")[0]
        kills = self._kills[function]
        return sorted(self._reaching[function], key=lambda each: (-kills[each[0].nodeid], each[1]))

    def _start(self, name: str, tests: Sequence[tuple[pytest.Item, float]]) -> dict[int, tuple[str, int]]:
        """Run the tests on a mutant in a child, which writes the ID of the test that fails. Returns its process ID."""
        from mutmut.mutation.trampoline import set_mutant_under_test

        reading, writing = os.pipe()
        if child := os.fork():
            os.close(writing)
            return {child: (name, reading)}
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (MOST_SECONDS, MOST_SECONDS))
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(ASLEEP)
            set_mutant_under_test(name)
            for item, taken in tests:
                signal.setitimer(signal.ITIMER_PROF, SECONDS + 20 * taken)
                if any(report.failed for report in runtestprotocol(item, log=False, nextitem=None)):
                    os.write(writing, item.nodeid.encode())
                    os._exit(KILLED)
            os._exit(SURVIVED)
        finally:
            os._exit(SUSPICIOUS)

    def _finish(self, running: dict[int, tuple[str, int]]) -> None:
        """Wait for one child."""
        child, status = os.wait()
        name, reading = running.pop(child)
        with os.fdopen(reading, "rb") as pipe:
            if killer := pipe.read().decode():
                self._kills[name.rpartition("__mutmut_")[0]][killer] += 1
        code = os.waitstatus_to_exitcode(status)
        self.results[name] = TIMEOUT if code < 0 else code
        done = len(self.results)
        if done % 50 == 0 or done == len(self.names):
            self.save(self.results)
            print(f"{done} of {len(self.names)}: {Counter(self.results.values())[SURVIVED]} survive", flush=True)


def generate() -> dict[str, Any]:
    """Make the mutants of what changed. Returns mutmut's data for each file, by its path."""
    from mutmut.__main__ import create_mutants
    from mutmut.mutation.data import SourceFileMutationData
    from mutmut.mutation.trampoline import set_mutant_under_test
    from mutmut.utils.file_utils import copy_also_copy_files, copy_src_dir, setup_source_paths, walk_mutatable_files

    set_mutant_under_test("mutant_generation")
    Path("mutants").mkdir(exist_ok=True)
    copy_src_dir()
    copy_also_copy_files()
    setup_source_paths()
    create_mutants(os.cpu_count() or 1)
    found = {str(path): SourceFileMutationData(path=path) for path in walk_mutatable_files()}
    for data in found.values():
        data.meta_path = data.meta_path.absolute()  # for pytest runs elsewhere
        data.load()
    return found


def main(patterns: Sequence[str], jobs: int, tests: Sequence[str], only_new: bool) -> int:
    """Run the tests, by default those of pyproject.toml, on the mutants that match any of the patterns, by default all.
    only_new: leave out mutants with a result, because their function has not changed. Returns the exit status.
    """
    from mutmut.configuration import config

    files = generate()
    known = {name: code for data in files.values() for name, code in data.exit_code_by_key.items()}
    every = [name for name, code in known.items() if code is None or not only_new]
    names = [name for name in every if not patterns or any(fnmatch.fnmatch(name, each) for each in patterns)]

    def save(results: Mapping[str, int]) -> None:
        for data in files.values():
            if found := {name: code for name, code in results.items() if name in data.exit_code_by_key}:
                data.exit_code_by_key.update(found)
                data.save()

    options = ["-c", "pyproject.toml", "-q", "--tb=native", "--assert=plain", "-o", "tmp_path_retention_policy=failed"]
    os.chdir("mutants")
    mutation = Mutation(names, jobs, save)
    return int(pytest.main([*options, *(tests or config().pytest_add_cli_args_test_selection)], plugins=[mutation]))


def parser() -> argparse.ArgumentParser:
    """The arguments, which `python -m tests.mutants` takes, too."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutate", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("patterns", nargs="*", help="names of mutants")
    parser.add_argument("-n", type=int, default=os.cpu_count() or 1, dest="jobs", help="mutants at a time")
    parser.add_argument("-t", action="append", default=[], dest="tests", help="a file with tests, if not all")
    parser.add_argument("--new", action="store_true", help="only mutants of functions that changed since the last run")
    return parser


if __name__ == "__main__":
    given = parser().parse_args()
    sys.exit(main(given.patterns, given.jobs, given.tests, given.new))
