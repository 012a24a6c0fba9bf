"""A slice of the storage world's seeds, and what it promises about itself.

``python -m tests.sim --storage --count 500`` runs more; ``SIM_FIRST_SEED`` and
``SIM_STORAGE_SEEDS`` choose others here.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sim.campaign import Run, perform, report_failure

FIRST_SEED = int(os.environ.get("SIM_FIRST_SEED", "0"))
SEEDS = int(os.environ.get("SIM_STORAGE_SEEDS", "3"))
BATCHES = 3
ROOT = Path(__file__).parents[2]
SHORT = {"storm_us": "4000000"}


@pytest.mark.parametrize("batch", range(BATCHES))
def test_no_seed_breaks_a_promise(batch: int) -> None:
    count = max(1, SEEDS // BATCHES)
    for seed in range(FIRST_SEED + batch * count, FIRST_SEED + (batch + 1) * count):
        run = Run(seed=seed, storage=True, settings=SHORT)
        result = perform(run)
        assert result.violation is None, report_failure(run, result)


def test_a_seed_is_the_same_run_in_another_process_whatever_its_hashes() -> None:
    digests = []
    for hash_seed in ("1", "2"):
        command = [sys.executable, "-m", "tests.sim", "--storage", "--seed", "2"]
        command += ["--set", "storm_us=2500000"]
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        )
        digests.append(done.stdout)
    assert digests[0] == digests[1]
    assert "trace" in digests[0]
