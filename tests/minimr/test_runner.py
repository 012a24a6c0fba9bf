"""What is checked before any work, what a result tells, and how a handle behaves."""

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import minimr
from minigfs.errors import NoCluster
from minimr.config import LOCAL_PROCESS_BYTES_MIN
from minimr.errors import InputMissing, JobFailed, JobUsageError, OutputExists
from minimr.messages import JobState
from minimr.runner import explain, run, submit

CALLS: list[bytes] = []


def map_line(line: bytes) -> Iterator[tuple[bytes, int]]:
    CALLS.append(line)
    yield line, 1


JOB = minimr.Job("lines", map=map_line, reduce=minimr.agg.sum)


@pytest.fixture(autouse=True)
def _no_calls_yet() -> None:
    CALLS.clear()


@pytest.fixture
def source(tmp_path: Path) -> str:
    path = tmp_path / "in.txt"
    path.write_bytes(b"b\na\nb\n")
    return str(path)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_result_tells_counters_parts_and_phases_that_add_up(tmp_path: Path, source: str) -> None:
    result = run(JOB, input=source, output=str(tmp_path / "out"), reducers=2)
    assert result.output == f"file://{tmp_path}/out"
    assert result.counters["map.input_records"] == 3
    assert result.counters["output.records"] == 2
    assert [part.name for part in result.parts] == ["part-r-00000", "part-r-00001"]
    phases = dict(result.phases_ms)
    assert phases.pop("total") == sum(phases.values())
    assert list(phases) == ["plan", "map", "reduce", "publish"]
    rows = result.to_arrow().sort_by("key").to_pylist()
    assert rows == [{"key": "a", "value": 1}, {"key": "b", "value": 2}]
    assert json.loads(json.dumps(result.summary()))["job_id"] == result.job_id


def test_one_result_feeds_the_next_job(tmp_path: Path, source: str) -> None:
    first = run(JOB, input=source, output=str(tmp_path / "one"))
    swap = minimr.Job("swap", map=lambda line: [line.split(b"\t")[::-1]])
    second = run(swap, input=first.output, output=str(tmp_path / "two"))
    assert second.to_arrow().to_pylist() == [{"key": "1", "value": "a"}, {"key": "2", "value": "b"}]


def test_an_output_that_exists_is_refused_before_any_work(tmp_path: Path, source: str) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputExists, match="--overwrite"):
        run(JOB, input=str(tmp_path / "missing"), output=str(tmp_path / "out"))
    assert CALLS == []
    assert names(tmp_path) == ["in.txt", "out"]


def test_overwrite_replaces_the_whole_output_and_only_at_the_end(
    tmp_path: Path, source: str
) -> None:
    output = tmp_path / "out"
    run(JOB, input=source, output=str(output), reducers=3)
    before = names(output)

    def explode(line: bytes) -> Iterator[tuple[bytes, int]]:
        raise ValueError

    with pytest.raises(JobFailed):
        run(minimr.Job("bad", map=explode), input=source, output=str(output), overwrite=True)
    assert names(output) == before
    run(JOB, input=source, output=str(output), reducers=1, overwrite=True)
    assert names(output) == ["_manifest.json", "part-r-00000"]
    assert names(tmp_path) == ["in.txt", "out"]


@pytest.mark.parametrize("location", ["nothing.txt", "no/such/dir", "*.nope", "no-dir/*.txt"])
def test_a_missing_input_is_named(tmp_path: Path, location: str) -> None:
    with pytest.raises(InputMissing, match=location.replace("*", r"\*")):
        run(JOB, input=str(tmp_path / location), output=str(tmp_path / "out"))


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_output_that_holds_the_input_is_refused(
    tmp_path: Path, source: str, overwrite: bool
) -> None:
    with pytest.raises((JobUsageError, OutputExists)):
        run(JOB, input=source, output=str(tmp_path), overwrite=overwrite)
    assert Path(source).read_bytes() == b"b\na\nb\n"


def test_an_output_below_a_file_is_refused_before_any_work(tmp_path: Path, source: str) -> None:
    with pytest.raises(JobUsageError, match=f"{source} is a file"):
        run(JOB, input=source, output=f"{source}/made/out")
    assert CALLS == []


@pytest.mark.parametrize("empty", ["file", "directory"])
def test_an_empty_input_publishes_an_empty_but_valid_output(tmp_path: Path, empty: str) -> None:
    path = tmp_path / "in"
    path.touch() if empty == "file" else path.mkdir()
    result = run(JOB, input=str(path), output=str(tmp_path / "out"), reducers=3)
    assert names(tmp_path / "out") == [
        "_manifest.json",
        "part-r-00000",
        "part-r-00001",
        "part-r-00002",
    ]
    assert all((tmp_path / "out" / part.name).read_bytes() == b"" for part in result.parts)
    manifest = json.loads((tmp_path / "out" / "_manifest.json").read_bytes())
    assert [part["records"] for part in manifest["parts"]] == [0, 0, 0]
    assert result.to_arrow().num_rows == 0


def test_a_map_only_job_writes_one_part_per_map(tmp_path: Path, source: str) -> None:
    job = minimr.Job("keep", map=lambda line: [(line, b"")] if line == b"a" else [])
    result = run(job, input=source, output=str(tmp_path / "out"))
    assert [part.name for part in result.parts] == ["part-m-00000"]
    assert (tmp_path / "out" / "part-m-00000").read_bytes() == b"a\t\n"


def test_directories_globs_and_gz_are_read_and_hidden_names_are_not(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    (logs / "deep").mkdir(parents=True)
    (logs / "one.txt").write_bytes(b"1\n")
    (logs / "deep" / "two.gz").write_bytes(gzip.compress(b"2\n"))
    (logs / "_skipped").write_bytes(b"no\n")
    (logs / ".hidden").write_bytes(b"no\n")
    whole = run(JOB, input=str(logs), output=str(tmp_path / "all"))
    assert whole.to_arrow().to_pylist() == [{"key": "1", "value": 1}, {"key": "2", "value": 1}]
    part = run(JOB, input=[f"{logs}/*.txt", f"{logs}/deep/*.gz"], output=str(tmp_path / "some"))
    assert part.to_arrow().equals(whole.to_arrow())


def test_no_processes_at_all_run_everything_here_with_one_attempt_and_the_cause_at_hand(
    tmp_path: Path, source: str
) -> None:
    attempts = []

    def explode(line: bytes) -> Iterator[tuple[bytes, int]]:
        attempts.append(line)
        raise KeyError("gone")

    job = minimr.Job("bad", map=explode, reduce=minimr.agg.sum)
    with pytest.raises(JobFailed) as caught:
        run(job, input=source, output=str(tmp_path / "out"), processes=0)
    assert attempts == [b"b"]
    assert isinstance(caught.value.__cause__, KeyError), "for pdb.post_mortem"


@pytest.mark.parametrize(("is_same", "tried"), [(True, 2), (False, 4)])
def test_a_user_failure_is_tried_again_but_not_for_ever(
    tmp_path: Path, source: str, is_same: bool, tried: int
) -> None:
    """Twice if it is the same on the same record."""
    attempts: list[bytes] = []

    def explode(line: bytes) -> Iterator[tuple[bytes, int]]:
        attempts.append(line)
        raise KeyError("gone" if is_same else len(attempts))

    job = minimr.Job("bad", map=explode, reduce=minimr.agg.sum)
    with pytest.raises(JobFailed):
        run(job, input=source, output=str(tmp_path / "out"))
    assert len(attempts) == tried


def test_on_status_hears_the_end_and_versions_only_grow(tmp_path: Path, source: str) -> None:
    heard = []
    run(JOB, input=source, output=str(tmp_path / "out"), on_status=heard.append)
    assert heard[-1].state is JobState.DONE
    versions = [status.version for status in heard]
    assert versions == sorted(set(versions))


def test_a_handle_can_be_asked_after_the_end(tmp_path: Path, source: str) -> None:
    handle = submit(JOB, input=source, output=str(tmp_path / "out"))
    first = handle.wait()
    assert handle.wait() == first
    assert handle.status().state is JobState.DONE
    handle.cancel()  # too late, and no error


def test_explain_makes_all_checks_and_does_nothing(tmp_path: Path, source: str) -> None:
    plan = explain(JOB, input=source, output=str(tmp_path / "out"), split_size=2, reducers=2)
    assert (len(plan.splits), plan.partition_count, plan.backend) == (3, 2, "local")
    assert f"file://{source}" in plan.text()
    assert names(tmp_path) == ["in.txt"]
    with pytest.raises(InputMissing):
        explain(JOB, input=str(tmp_path / "none"), output=str(tmp_path / "out"))


def test_a_setting_of_a_job_may_be_any_bytes_and_one_of_a_format_may_not(
    tmp_path: Path, source: str
) -> None:
    out = tmp_path / "out"
    run(JOB, input=source, output=str(out), settings={"pattern": os.fsdecode(b"\xff")})
    assert json.loads((out / "_manifest.json").read_bytes())["settings"] == {"pattern": r"\udcff"}
    with pytest.raises(JobUsageError, match="must be UTF-8"):
        run(
            JOB, input=source, output=str(tmp_path / "other"),
            settings={"input_format": "keyvalue", "input.separator": os.fsdecode(b"\xff")},
        )  # fmt: skip


def test_calls_that_make_no_sense_say_what_to_do(tmp_path: Path, source: str) -> None:
    output = str(tmp_path / "out")
    map_only = minimr.Job("keep", map=map_line)
    with pytest.raises(JobUsageError, match="no reduce"):
        run(map_only, input=source, output=output, reducers=2)
    with pytest.raises(JobUsageError, match="at least 1"):
        run(JOB, input=source, output=output, reducers=0)
    with pytest.raises(JobUsageError, match="auto, local, ray"):
        run(JOB, input=source, output=output, backend="spark")
    with pytest.raises(JobUsageError, match=r"minimr\.Job"):
        run(map_line, input=source, output=output)  # type: ignore[arg-type]
    with pytest.raises(InputMissing, match="no input"):
        run(JOB, input=[], output=output)


def test_without_a_cluster_the_error_says_how_to_start_one(
    tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINIMR_HOME", str(tmp_path / "home"))
    with pytest.raises(NoCluster, match="minimr up"):
        run(JOB, input=source, output=str(tmp_path / "out"), backend="ray")


def test_closures_that_cannot_be_pickled_run_here_but_not_in_children(
    tmp_path: Path, source: str
) -> None:
    lock = __import__("threading").Lock()

    def locked(line: bytes) -> Iterator[tuple[bytes, int]]:
        with lock:
            yield line, 1

    job = minimr.Job("locked", map=locked, reduce=minimr.agg.sum)
    assert run(job, input=source, output=str(tmp_path / "out")).counters["output.records"] == 2
    with pytest.raises(JobUsageError, match="cannot be sent to other processes"):
        run(job, input=source, output=str(tmp_path / "other"), processes=1)


def test_the_plan_uses_threads_processes_or_nothing_as_the_job_asks(
    tmp_path: Path, source: str
) -> None:
    def slots(job: minimr.Job, path: Path, processes: int | None = None) -> tuple[int, bool]:
        plan = explain(
            job, input=str(path), output=str(tmp_path / "out"), split_size=1 << 20,
            processes=processes,
        )  # fmt: skip
        return plan.slot_count, plan.in_processes

    cores = len(os.sched_getaffinity(0))
    large = tmp_path / "large.txt"
    with large.open("wb") as file:
        file.truncate(LOCAL_PROCESS_BYTES_MIN)
    batches = minimr.Job("b", map_batches=lambda batch: batch, reduce=minimr.agg.sum)
    assert slots(JOB, Path(source)) == (1, False)
    assert slots(JOB, large) == (cores, cores > 1)
    assert slots(batches, large) == (cores, False)
    assert slots(batches, large, processes=0) == (0, False)
    assert slots(batches, large, processes=3) == (3, True)


def test_a_client_of_a_cluster_loads_no_arrow() -> None:
    """Half of a small job's time would be imports that only its executors need."""
    code = (
        "import sys, minimr.cli.run, minimr.runner, minimr.backends.cluster_client, minigfs.fs\n"
        "sys.exit(', '.join({'numpy', 'pyarrow', 'polars'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
