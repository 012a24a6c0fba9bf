"""Plants mutants in copies of the source tree and lets the tests, and the simulator, at them.

The working tree is only read. Everything runs in a temporary directory: first the killers of all
chosen mutants in an unchanged copy, where they must pass, then each mutant in a copy of its own.

A mutant is killed if *every* test named as its killer fails, so the table names no test that only
happens to be near. One that cannot even be imported kills nothing: it is broken.
"""

import enum
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.mutant import ROOT, Mutant, planted
from tests.mutants.results import SimulatorResult

__all__ = ["Outcome", "Tree", "Verdict"]

_COPIED = ("minigfs", "minimr", "jobs", "datasets", "tests", "pyproject.toml", "README.md")
_NOT_COPIED = shutil.ignore_patterns("__pycache__", ".hypothesis", "*.egg-info")
_TESTS_TIMEOUT_S = 900
_ONE_TEST_TIMEOUT_S = 60
_SEEDS_A_PROCESS = 50
_SEEDS_TIMEOUT_S = 300
_FINISHED_SEED = re.compile(r"^seed \d+: trace", re.MULTILINE)
_FAILED_SEED = re.compile(r"^seed (?P<seed>\d+) breaks a promise: (?P<reason>.*)$", re.MULTILINE)


class Outcome(enum.Enum):
    KILLED = "killed"
    SURVIVED = "survived"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    outcome: Outcome
    failed: tuple[str, ...]
    """The named tests that failed."""
    output: str

    @property
    def first_line(self) -> str:
        """Why, in one line: the first failure pytest names."""
        for line in self.output.splitlines():
            if line.startswith(("FAILED ", "ERROR ")):
                return line
        return self.output.strip().splitlines()[-1] if self.output.strip() else "no output"


class Tree:
    """A copy of the source tree that tests may be run in."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def copy_of_sources(cls, path: Path) -> "Tree":
        path.mkdir(parents=True)
        for name in _COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, path / name, ignore=_NOT_COPIED)
            elif source.is_file():
                shutil.copy2(source, path / name)
        return cls(path)

    def with_mutant(self, mutant: Mutant, path: Path) -> "Tree":
        """A copy of this copy, compiled files included, with it planted."""
        texts = planted(mutant, self.path)
        shutil.copytree(self.path, path)
        for file, text in texts.items():
            target = path / file
            target.write_text(text)
            for compiled in (target.parent / "__pycache__").glob(f"{target.stem}.*.pyc"):
                compiled.unlink()
        return Tree(path)

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    def run(self, arguments: Sequence[str], timeout_s: float) -> tuple[int, str]:
        """Python with these arguments, in this tree; 124 for one that does not end."""
        environment = {**os.environ, "PYTHONPATH": str(self.path), "PYTHONHASHSEED": "0"}
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=self.path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            output, _ = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
            return 124, output
        return process.returncode, output

    def run_tests(self, nodes: Sequence[str]) -> Verdict:
        """KILLED: every node failed; SURVIVED: at least one passed."""
        code, output = self.run(
            [
                *("-m", "pytest", "-q", "-rfE", "--tb=line", "--no-header"),
                *("-p", "no:cacheprovider", f"--timeout={_ONE_TEST_TIMEOUT_S}"),
                *sorted(set(nodes)),
            ],
            _TESTS_TIMEOUT_S,
        )
        reported = [line for line in output.splitlines() if line.startswith("FAILED ")]
        failed = tuple(
            node
            for node in nodes
            if any(
                line.startswith((f"FAILED {node}[", f"FAILED {node}::", f"FAILED {node} "))
                or line == f"FAILED {node}"
                for line in reported
            )
        )
        if code not in (0, 1):
            outcome = Outcome.BROKEN
        elif len(failed) == len(nodes):
            outcome = Outcome.KILLED
        else:
            outcome = Outcome.SURVIVED
        return Verdict(outcome=outcome, failed=failed, output=output)

    def run_simulator(self, seeds: int) -> SimulatorResult | None:
        """Seeds from 0 until one fails, at most ``seeds``; None if somebody ended it.

        A seed fails by a broken promise, by an error nobody expected, or by going on for ever.
        """
        for first in range(0, seeds, _SEEDS_A_PROCESS):
            count = min(_SEEDS_A_PROCESS, seeds - first)
            code, output = self.run(
                ["-m", "tests.sim", "--seed", str(first), "--count", str(count)],
                _SEEDS_TIMEOUT_S,
            )
            if code < 0:
                return None
            if code != 0:
                finished = len(_FINISHED_SEED.findall(output))
                found = _FAILED_SEED.search(output)
                killed_in = int(found["seed"]) + 1 if found else first + finished + 1
                reason = found["reason"] if found else _last_line(output, code)
                return SimulatorResult(seeds=seeds, killed_in=killed_in, reason=reason[:200])
        return SimulatorResult(seeds=seeds, killed_in=None)


def _last_line(output: str, code: int) -> str:
    if code == 124:
        return "it goes on for ever"
    return output.strip().splitlines()[-1] if output.strip() else f"status {code}"
