"""A wrong field index meets its record, number 734,211 of the third file: `minimr run` names it."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import fsspec
import pytest

import minimr
from minimr.backends.cluster_client import ClusterClient

PROGRAM = """\
import minimr

def count_third_field(line):
    fields = line.split(b" ")
    yield fields[2], 1

job = minimr.Job("third-field", map=count_third_field, reduce=minimr.agg.sum)
"""
BAD_LINE = 5  # of PROGRAM
BAD_RECORD = 734_211  # counted from 1
RECORDS = 740_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three files; one record of the third, which is long, lacks its third field."""
    folder = tmp_path_factory.mktemp("bug")
    (folder / "bug.py").write_text(PROGRAM)
    (folder / "in").mkdir()
    lines = [b"%d is fine" % number for number in range(RECORDS)]
    for name in ("a.log", "b.log"):
        (folder / "in" / name).write_bytes(b"\n".join(lines[:1000]))
    lines[BAD_RECORD - 1] = b"two fields"
    (folder / "in" / "c.log").write_bytes(b"\n".join(lines))
    return folder


def offset_of_bad() -> int:
    return sum(len(b"%d is fine\n" % number) for number in range(BAD_RECORD - 1))


def check_told_once(
    folder: Path, source: str, output: str, *options: str, home: str | None = None
) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "minimr", "run", "bug.py:job"),
            *("--input", source, "--output", output, *options),
        ],
        check=False,
        cwd=folder,
        capture_output=True,
        text=True,
        env=dict(os.environ, **({"MINIMR_HOME": home} if home is not None else {})),
    )
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    line = re.compile(
        r"minimr: job third-field-\w+ failed: task \S+: map raised IndexError: list index out of "
        rf"range on record b'two fields' in \S*/c\.log at byte {offset_of_bad()}\b"
    )
    assert len(line.findall(done.stderr)) == 1, done.stderr
    assert done.stderr.count("two fields") == 1
    assert done.stderr.count("Traceback (most recent call last)") == 1
    frames = re.findall(r'File "([^"]+)", line (\d+), in (\w+)', done.stderr)
    assert frames == [(str(folder / "bug.py"), str(BAD_LINE), "count_third_field")], done.stderr
    assert "yield fields[2], 1" in done.stderr


@pytest.mark.e2e
@pytest.mark.parametrize("options", [(), ("--processes", "0"), ("--processes", "2")])
def test_on_this_machine(folder: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    check_told_once(folder, "in", str(tmp_path / "out"), *options)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def cluster() -> Iterator[minimr.LocalCluster]:
    with minimr.LocalCluster(workers=2, chunkservers=1, replication=1) as cluster:
        yield cluster


@pytest.mark.e2e
@pytest.mark.timeout(300)
def test_on_a_cluster(folder: Path, cluster: minimr.LocalCluster) -> None:
    fs = fsspec.filesystem("minigfs", **cluster.storage_options)
    fs.put(str(folder / "in"), "/in", recursive=True)
    check_told_once(
        folder, "minigfs:///in", "minigfs:///out", "--split-size", "4MiB", home=str(cluster.home)
    )
    assert not fs.exists("/out")
    with closing(ClusterClient.discover(home=str(cluster.home))) as client:
        (status,) = client.list_jobs()
    assert status.counters["map.attempts.failed"] == 2, "the record is tried once more, not thrice"
