"""A slice of the storage world's seeds, and what it promises about itself.

``python -m tests.sim --storage --count 500`` runs more; ``SIM_FIRST_SEED`` and
``SIM_STORAGE_SEEDS`` choose others here.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from minigfs.chunkserver.mutations import Mutations
from minigfs.chunkserver.open_replica import OpenReplica
from minigfs.master import tenure
from tests.sim.campaign import Run, perform
from tests.sim.storage.servers import LifeFile

FIRST_SEED = int(os.environ.get("SIM_FIRST_SEED", "0"))
SEEDS = int(os.environ.get("SIM_STORAGE_SEEDS", "3"))
BATCHES = 3
ROOT = Path(__file__).parents[2]
SHORT = "storm_us=4000000"


@pytest.mark.parametrize("batch", range(BATCHES))
def test_no_seed_breaks_a_promise(batch: int) -> None:
    """In processes of their own: threads of other tests would meet simulated clocks here."""
    count = max(1, SEEDS // BATCHES)
    command = [
        sys.executable,
        "-m",
        "tests.sim",
        "--storage",
        "--set",
        SHORT,
        "--count",
        str(count),
    ]
    command += ["--seed", str(FIRST_SEED + batch * count)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


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


WORLDS_LEFT = """
import gc
from tests.sim.campaign import Run, perform
from tests.sim.storage.world import StorageWorld

settings = {"kinds": "reset,power-loss,isolate", "storm_us": "1000000"}
for seed in range(3):
    perform(Run(seed=seed, storage=True, settings=settings))
gc.collect()
print(sum(isinstance(known, StorageWorld) for known in gc.get_objects()))
"""


def test_a_world_that_has_ended_is_forgotten() -> None:
    """But for the last one, to which the client's module may hold: each has whole disks."""
    done = subprocess.run(
        [sys.executable, "-c", WORLDS_LEFT], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) <= 1


def no_sync_before_the_acknowledgement(plant: pytest.MonkeyPatch) -> None:
    """Of records: the file is synced at all other times."""
    sync = LifeFile.sync

    def forgetful(file: LifeFile) -> None:
        if sys._getframe(1).f_code is not OpenReplica.apply.__code__:
            sync(file)

    plant.setattr(LifeFile, "sync", forgetful)


def frozen_replicas_take_mutations(plant: pytest.MonkeyPatch) -> None:
    """Of a version that the log has left behind."""
    plant.setattr(Mutations, "freeze", lambda mutations: None)


def an_old_master_is_obeyed(plant: pytest.MonkeyPatch) -> None:
    """It does not look whether its log has what a chunkserver has seen."""
    plant.setattr(tenure, "contains", lambda marks, seen, commit_index: True)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # a world collects others' garbage
@pytest.mark.parametrize(
    ("mistake", "kinds"),
    [
        (no_sync_before_the_acknowledgement, "power-loss,crash-point,crash-many"),
        (frozen_replicas_take_mutations, "pause,isolate,cut-one-way,stale-leader,reset"),
        (an_old_master_is_obeyed, "old-master,client-crash"),
    ],
)
def test_a_planted_mistake_is_found(
    mistake: Callable[[pytest.MonkeyPatch], None], kinds: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [Run(seed=seed, storage=True, settings={"kinds": kinds}) for seed in range(8)]
    assert perform(runs[0]).violation is None
    mistake(monkeypatch)
    assert any(perform(run).violation is not None for run in runs)
