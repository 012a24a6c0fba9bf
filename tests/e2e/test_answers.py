"""url-count equals its oracle on real and dirty logs, for any chunk size, reducers and backend.

Everything goes through the commands, as a user would: up, fs put, run, fs cat.
"""

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.oracles import read_counts, url_counts, url_counts_by_field

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

DIRTY_LOG = (
    b'h - - [t] "GET /plain HTTP/1.0" 200 1\n'
    b'h - - [t] "GET /plain HTTP/1.0" 200 1\r\n'
    b'h - - [t] "GET\t/tab HTTP/1.0" 200 1\n'
    b'h - - [t] "  GET   /blanks   HTTP/1.0" 200 1\n'
    b'h - - [t] "GET /not-utf8-\xff\xfe HTTP/1.0" 200 1\n'
    b'h - - [t] "GET /unclosed\r\n'
    b'h - - [t] "GET /nul-\x00 HTTP/1.0" 200 1\n'
    b"no quote at all\n"
    b'h - - [t] "" 400 -\n'
    b'h - - [t] "-" 408 -\n'
    b"\n"
    b"   \t  \n"
    b'h - - [t] "POST ' + b"/long" * 5000 + b' HTTP/1.0" 200 1\n'
    b'h - - [t] "GET /escaped\\" HTTP/1.0" 200 1\n'
    b'last "GET /no-line-feed'
)  # fmt: skip


def _minimr(*arguments: str, home: Path) -> bytes:
    done = subprocess.run(
        [sys.executable, "-m", "minimr", *arguments],
        check=False,
        env={**os.environ, "MINIMR_HOME": str(home)},
        capture_output=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@pytest.fixture(scope="module", params=["1KiB", "65537B", "64MiB"])
def cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("home")
    _minimr("up", "--chunk-size", request.param, "--workers", "2", home=home)
    try:
        yield home
    finally:
        _minimr("down", home=home)


def _check(
    home: Path, source: str, output: str, data: bytes, field: int | None, *options: str
) -> None:
    setting = [] if field is None else ["--set", f"field={field}"]
    result = json.loads(
        _minimr(
            "run",
            "url-count",
            "--input",
            source,
            "--output",
            output,
            "--json",
            *setting,
            *options,
            home=home,
        )
    )
    expected, malformed = url_counts(data) if field is None else url_counts_by_field(data, field)
    if output.startswith("minigfs:"):
        path = output.removeprefix("minigfs://")
        parts = [
            _minimr("fs", "cat", f"{path}/{part['name']}", home=home) for part in result["parts"]
        ]
    else:
        parts = [path.read_bytes() for path in sorted(Path(output).glob("part-*"))]
    assert len(parts) == len(result["parts"])
    for part in parts:
        keys = [line.rpartition(b"\t")[0] for line in part.splitlines(keepends=False)]
        assert keys == sorted(keys) or b"\r" in part
    assert read_counts(parts) == expected
    assert result["counters"].get("map.malformed_records", 0) == malformed


def _real_log(name: str) -> bytes:
    folder = os.environ.get("MINIMR_DATASETS")
    if folder is None:
        pytest.skip("set MINIMR_DATASETS to a folder with weblogs/ to compare with real logs")
    return gzip.decompress((Path(folder) / "weblogs" / f"{name}.log.gz").read_bytes())


@pytest.mark.parametrize("field", [None, 7], ids=["quoted", "field=7"])
@pytest.mark.parametrize("reducers", ["1", "3"])
def test_a_dirty_log_on_the_cluster(
    cluster: Path, tmp_path: Path, field: int | None, reducers: str
) -> None:
    (tmp_path / "dirty.log").write_bytes(DIRTY_LOG * 3)
    _minimr("fs", "put", str(tmp_path / "dirty.log"), "/dirty.log", home=cluster)
    _check(
        cluster, "minigfs:///dirty.log", f"minigfs:///dirty-{field}-{reducers}", DIRTY_LOG * 3,
        field,         "--reducers", reducers, "--split-size", "4KiB",
    )  # fmt: skip


@pytest.mark.parametrize("name", ["epa-http", "elastic_apache_logs"])
@pytest.mark.parametrize("field", [None, 7], ids=["quoted", "field=7"])
@pytest.mark.parametrize("size", [150_000, pytest.param(1_500_000, marks=pytest.mark.slow)])
def test_a_real_log_on_the_cluster(
    cluster: Path, tmp_path: Path, name: str, field: int | None, size: int
) -> None:
    data = _real_log(name)[:size]
    (tmp_path / "real.log").write_bytes(data)
    case = f"{name}-{field}-{size}"
    _minimr("fs", "put", str(tmp_path / "real.log"), f"/{case}.log", home=cluster)
    _check(
        cluster, f"minigfs:///{case}.log", f"minigfs:///{case}", data, field,
        "--reducers", "2", "--split-size", f"{size // 15 + 1}B",
    )  # fmt: skip


REAL_LOGS = [
    "nasa_19950709",
    "nasa_19950701_first11676",
    "epa-http",
    "elastic_apache_logs",
    "crunch_access_anon",
]


@pytest.mark.parametrize("name", REAL_LOGS)
@pytest.mark.parametrize("field", [None, 7], ids=["quoted", "field=7"])
def test_a_real_log_on_the_local_backend(tmp_path: Path, name: str, field: int | None) -> None:
    data = _real_log(name)
    (tmp_path / "real.log").write_bytes(data)
    _check(
        tmp_path, str(tmp_path / "real.log"), str(tmp_path / "out"), data, field,
        "--reducers", "3", "--split-size", "99991B",
    )  # fmt: skip


@pytest.mark.parametrize("name", REAL_LOGS)
def test_a_packed_real_log_on_the_local_backend(tmp_path: Path, name: str) -> None:
    data = _real_log(name)
    (tmp_path / "real.log.gz").write_bytes(gzip.compress(data))
    _check(tmp_path, str(tmp_path / "real.log.gz"), str(tmp_path / "out"), data, None)


@pytest.mark.parametrize(
    ("split_bytes", "long_count"),  # of the parts of the long URL: each byte of it is a task, or 7
    [(1, 100), (7, 500), (64, 5000), (1000, 5000), (30_000, 5000)]
    + [pytest.param(size, 5000, marks=pytest.mark.slow) for size in (1, 7)],
)
def test_a_dirty_log_on_the_local_backend_split_at_every_kind_of_place(
    tmp_path: Path, split_bytes: int, long_count: int
) -> None:
    data = DIRTY_LOG.replace(b"/long" * 5000, b"/long" * long_count)
    (tmp_path / "dirty.log").write_bytes(data)
    _check(
        tmp_path, str(tmp_path / "dirty.log"), str(tmp_path / "out"), data, None,
        "--split-size", str(split_bytes), "--reducers", "2",
    )  # fmt: skip
