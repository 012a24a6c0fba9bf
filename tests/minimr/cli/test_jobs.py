"""`minimr jobs` as a process, against a master that knows one job."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from minigfs.transport.messages import Message
from minigfs.transport.security import Security, create_token
from minimr.errors import NoSuchJob
from minimr.ids import JobId
from minimr.messages import GetJob, JobState, JobStatus, ListWorkers, WorkerList
from tests.served import served

KNOWN = JobStatus(
    job_id=JobId("known"), name="known", state=JobState.DONE, version=1, output="file:///out",
    map_count=1, maps_done=1, reduce_count=0, reduces_done=0, input_bytes=1, input_bytes_done=1,
    shuffle_bytes=0, shuffle_bytes_done=0, counters={}, phase_ms={}, submitted_ms=1, ended_ms=2,
)  # fmt: skip


def point_to(address: str, home: Path) -> None:
    client = {"cluster_id": "c1", "masters": [address], "token_file": "token"}
    (home / "client.json").write_text(json.dumps(client))


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    async def no_workers(_request: ListWorkers) -> Message:
        return WorkerList(workers=())

    async def one_job(request: GetJob) -> Message:
        if request.job_id != KNOWN.job_id:
            raise NoSuchJob(f"job {request.job_id} is unknown here")
        return KNOWN

    token = create_token(tmp_path / "token")
    handlers = {ListWorkers: no_workers, GetJob: one_job}
    with served(handlers, Security(token, "c1")) as address:
        point_to(address, tmp_path)
        yield tmp_path


def logs(home: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "minimr", "jobs", "logs", *arguments],
        env={**os.environ, "MINIMR_HOME": str(home)},
        check=False,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("json_option", [(), ("--json",)])
def test_logs_of_an_unknown_job_are_an_error(home: Path, json_option: tuple[str, ...]) -> None:
    done = logs(home, "unknown", *json_option)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "minimr: job unknown is unknown here\n"


def test_logs_of_a_job_that_printed_nothing_are_none(home: Path) -> None:
    done = logs(home, "known")
    assert (done.returncode, done.stdout) == (0, "")
    assert "no worker" in done.stderr


def test_a_cluster_that_only_keeps_files_says_so(tmp_path: Path) -> None:
    token = create_token(tmp_path / "token")
    with served({}, Security(token, "c1")) as address:
        point_to(address, tmp_path)
        done = logs(tmp_path, "any")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"the cluster of {address} keeps files and runs no jobs" in done.stderr
    assert "--backend local" in done.stderr
