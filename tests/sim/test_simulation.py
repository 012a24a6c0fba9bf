"""A slice of the simulator's seeds, and what the simulator promises about itself.

``make sim`` runs thousands; ``SIM_FIRST_SEED`` and ``SIM_SEEDS`` choose others here.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sim.campaign import Run, perform, replay_command, report_failure
from tests.sim.coverage import Coverage
from tests.sim.options import FAULT_KINDS, draw_options
from tests.sim.shrink import shrink

FIRST_SEED = int(os.environ.get("SIM_FIRST_SEED", "0"))
SEEDS = int(os.environ.get("SIM_SEEDS", "60"))
BATCHES = 6
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("batch", range(BATCHES))
def test_no_seed_breaks_a_promise(batch: int) -> None:
    count = max(1, SEEDS // BATCHES)
    for seed in range(FIRST_SEED + batch * count, FIRST_SEED + (batch + 1) * count):
        run = Run(seed=seed)
        result = perform(run)
        assert result.violation is None, report_failure(run, result)
        assert result.coverage["delivered"] >= run.events
        assert not result.coverage.missing(), result.coverage.summary()


@pytest.mark.parametrize("machines", ["key-value", "files,jobs"])
def test_a_seed_is_the_same_run_in_another_process_whatever_its_hashes(machines: str) -> None:
    digests = []
    for hash_seed in ("1", "2"):
        command = [sys.executable, "-m", "tests.sim", "--seed", "11", "--events", "500"]
        command += ["--set", f"machines={machines}"]
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        )
        digests.append(done.stdout)
    assert digests[0] == digests[1]
    assert "trace" in digests[0]


def test_files_and_jobs_have_their_share_of_the_worlds_and_all_of_them_happens() -> None:
    total = Coverage()
    for seed in range(FIRST_SEED, FIRST_SEED + 4):
        run = Run(seed=seed, settings={"machines": "files,jobs"})
        result = perform(run)
        assert result.violation is None, report_failure(run, result)
        total.update(result.coverage)
    for name in ("file operations", "Configure", "DiscardFiles", "publications", "task commits"):
        assert total[name], total.summary()
    drawn = [draw_options(seed, 1) for seed in range(400)]
    assert 20 < sum(options.has_jobs for options in drawn) < 60
    assert 70 < sum(options.has_files for options in drawn) < 130


def test_each_fault_can_be_left_out_and_the_others_stay_what_they_are() -> None:
    whole = perform(Run(seed=5, events=1000))
    first, *rest = whole.struck
    less = perform(Run(seed=5, events=1000, without=(first,)))
    assert first not in less.struck
    assert less.digest != whole.digest
    assert rest[0] in less.struck


def test_every_kind_of_fault_strikes_in_some_world_that_has_only_that_kind() -> None:
    for kind in FAULT_KINDS:
        total = Coverage()
        for seed in range(3):
            settings = {"kinds": kind, "calm_start": "true", "members": "3"}
            result = perform(Run(seed=seed, events=400, settings=settings))
            assert result.violation is None, f"{kind}, seed {seed}: {result.violation}"
            total.update(result.coverage)
            if total[kind]:
                break
        assert total[kind], f"{kind} never struck"


FORGETFUL = {"disks_forget": "true", "kinds": "power-loss,crash-many,cut-one-way,pause"}


def test_members_whose_disks_forget_what_was_synced_are_found_out_and_the_run_shrinks() -> None:
    runs = [Run(seed=seed, events=800, settings=FORGETFUL) for seed in range(12)]
    tried = ((run, perform(run)) for run in runs)
    found = ((run, result) for run, result in tried if result.violation and len(result.struck) > 2)
    run, result = next(found)  # disks that keep nothing break promises
    assert result.violation is not None
    assert f"--seed {run.seed}" in report_failure(run, result)

    smaller, shrunk = shrink(run, result, lambda line: None)
    assert shrunk.violation is not None
    assert shrunk.violation.kind == result.violation.kind
    assert len(shrunk.struck) < len(result.struck)
    assert perform(smaller).digest == shrunk.digest, replay_command(smaller)


def test_a_seed_that_fails_stops_no_campaign_and_fails_it() -> None:
    command = [sys.executable, "-m", "tests.sim", "--count", "3", "--events", "300", "--quiet"]
    command += ["--set", "disks_forget=true", "--set", "kinds=power-loss,crash-many"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "3 seeds in" in done.stdout
    assert "breaks a promise" in done.stdout
