"""``make bench``: url-count and word-count, ours beside Polars, DuckDB, awk and gunzip in the same
run.

Each command is a whole process, start to exit, on input in the page cache. Commands take turns, so
that a machine that slows down slows all of them; medians of wall and CPU seconds are printed, and
kept with the machine in ``benchmarks/results/url_count.json``. CPU seconds are of the process and
what it started and waited for: of a run on a cluster they are the client's.
"""

import argparse
import json
import os
import platform
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["main"]

POLARS = """
import sys, polars as pl
columns = {f"column_{i}": pl.String for i in range(1, 11)}
log = pl.scan_csv(sys.argv[1], separator=" ", has_header=False, quote_char=None,
                  truncate_ragged_lines=True, schema=columns, extra_columns="ignore")
counts = log.group_by("column_7").len().collect()
counts.write_csv(sys.argv[2], separator="\\t", include_header=False)
"""
DUCKDB = """
import sys, duckdb
columns = {f"c{i}": "VARCHAR" for i in range(1, 11)}
log = f"read_csv(?, delim=' ', header=false, quote='', escape='', columns={columns}, "
log += "null_padding=true, strict_mode=false, auto_detect=false)"
counts = f"SELECT c7, count(*) FROM {log} GROUP BY c7"
duckdb.execute(f"COPY ({counts}) TO '{sys.argv[2]}' (DELIMITER '\\t', HEADER false)", [sys.argv[1]])
"""
POLARS_WORDS = """
import sys, polars as pl
lines = pl.scan_csv(sys.argv[1], separator="\\x01", has_header=False, quote_char=None,
                    schema={"line": pl.String})
words = lines.select(pl.col("line").str.to_lowercase().str.extract_all("[a-z0-9]+").explode())
counts = words.group_by("line").len().collect(engine="streaming")
counts.write_csv(sys.argv[2], separator="\\t", include_header=False)
"""
DUCKDB_WORDS = """
import sys, duckdb
lines = "read_csv(?, delim='\\x01', header=false, quote='', escape='', "
lines += "columns={'line': 'VARCHAR'}, auto_detect=false)"
words = f"SELECT unnest(regexp_extract_all(lower(line), '[a-z0-9]+')) AS word FROM {lines}"
counts = f"SELECT word, count(*) FROM ({words}) GROUP BY word"
duckdb.execute(f"COPY ({counts}) TO '{sys.argv[2]}' (DELIMITER '\\t', HEADER false)", [sys.argv[1]])
"""
WORD_COUNT = 20_000  # different ones, as often as in a language: the first most, then fewer
WORDS_PER_ROW = 5
MINIMR = [sys.executable, "-m", "minimr"]


def main() -> int:
    """Measure, print a table, keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--local-size", default="110MB")
    parser.add_argument("--cluster-size", default="1GB")
    parser.add_argument("--no-cluster", action="store_true")
    parser.add_argument("--rows", type=int, default=1_000_000, help="of five words")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="minimr-bench-") as folder:
        os.environ["MINIMR_HOME"] = f"{folder}/home"
        figures = _words(Path(folder), options.rows, options.runs)
        figures |= _local(Path(folder), options.local_size, options.runs)
        if not options.no_cluster:
            figures |= _cluster(Path(folder), options.cluster_size, options.runs)
    report = {"machine": _machine(), "seconds": figures}
    target = Path(__file__).parent / "results" / "url_count.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(report, indent=2) + "\n")
    return 0


def _words(folder: Path, rows: int, runs: int) -> dict[str, dict[str, float]]:
    source = folder / "rows.txt"
    _write_rows(source, rows)
    return _race(
        f"local backend, {rows:,} rows of five words",
        {
            "minimr word-count": lambda: _run_job(source, folder / "out", None, "word-count"),
            "polars word-count": lambda: _script(POLARS_WORDS, source, folder / "polars.tsv"),
            "duckdb word-count": lambda: _script(DUCKDB_WORDS, source, folder / "duckdb.tsv"),
        },
        runs,
    )


def _write_rows(path: Path, rows: int) -> None:
    draw = random.Random(1)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(draw.choices(letters, k=draw.randint(3, 8))) for _ in range(WORD_COUNT)]
    weights = [1 / (rank + 1) for rank in range(WORD_COUNT)]
    with path.open("w") as file:
        for _ in range(rows):
            file.write(" ".join(draw.choices(words, weights, k=WORDS_PER_ROW)) + "\n")


def _local(folder: Path, size: str, runs: int) -> dict[str, dict[str, float]]:
    log, packed, out = folder / "local.log", folder / "local.log.gz", folder / "out"
    _minimr("data", "access-log", "--size", size, "--output", str(log))
    packed.write_bytes(subprocess.run(["gzip", "-6", "-c", log], check=True, stdout=-1).stdout)
    return _race(
        f"local backend, {size}",
        {
            "minimr field=7": lambda: _run_job(log, out, "field=7"),
            "minimr quoted URL": lambda: _run_job(log, out, None),
            "polars field=7": lambda: _script(POLARS, log, folder / "polars.tsv"),
            "duckdb field=7": lambda: _script(DUCKDB, log, folder / "duckdb.tsv"),
            "awk field=7": lambda: _quiet(["awk", "{c[$7]++} END{for(k in c)print k,c[k]}", log]),
            "minimr quoted URL, .gz": lambda: _run_job(packed, out, None),
            "gunzip": lambda: _quiet(["gunzip", "-c", packed]),
        },
        runs,
    )


def _cluster(folder: Path, size: str, runs: int) -> dict[str, dict[str, float]]:
    log = folder / "cluster.log"
    _minimr("data", "access-log", "--size", size, "--output", str(log))
    _minimr("up")
    try:
        _minimr("fs", "mkdir", "/bench")
        _minimr("fs", "put", str(log), "/bench/cluster.log")
        tiny = folder / "tiny.log"
        tiny.write_bytes(log.read_bytes()[:1000])
        _minimr("fs", "put", str(tiny), "/bench/tiny.log")
        return _race(
            f"running cluster, {size}",
            {
                "minimr field=7, cluster": lambda: _run_job(
                    "minigfs:///bench/cluster.log", "minigfs:///bench/out", "field=7"
                ),
                "minimr field=7, local, big": lambda: _run_job(log, folder / "out", "field=7"),
                "polars field=7, big": lambda: _script(POLARS, log, folder / "polars.tsv"),
                "duckdb field=7, big": lambda: _script(DUCKDB, log, folder / "duckdb.tsv"),
                "minimr 10 lines, cluster": lambda: _run_job(
                    "minigfs:///bench/tiny.log", "minigfs:///bench/out", None
                ),
            },
            runs,
        )
    finally:
        _minimr("down")


def _race(
    title: str, commands: dict[str, Callable[[], None]], runs: int
) -> dict[str, dict[str, float]]:
    """Run the commands in turn, ``runs`` times after one warm-up; seconds by command."""
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    cpu_seconds: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(runs + 1):
        for name, command in commands.items():
            started, cpu_started = time.perf_counter(), _children_cpu_s()
            command()
            if turn:
                seconds[name].append(time.perf_counter() - started)
                cpu_seconds[name].append(_children_cpu_s() - cpu_started)
    print(f"\n{title}: seconds, median (min to max) of {runs}, and of CPU")
    figures = {}
    for name, values in seconds.items():
        figures[name] = {
            "median": round(statistics.median(values), 3),
            "min": round(min(values), 3),
            "max": round(max(values), 3),
            "cpu": round(statistics.median(cpu_seconds[name]), 3),
        }
        spread = f"({min(values):.2f} to {max(values):.2f})"
        print(
            f"  {name:<28} {statistics.median(values):6.2f}  {spread:<16} "
            f"{statistics.median(cpu_seconds[name]):6.2f}"
        )
    return figures


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _script(program: str, source: Path, output: Path) -> None:
    _quiet([sys.executable, "-c", program, source, output])


def _run_job(
    source: Path | str, output: Path | str, setting: str | None, job: str = "url-count"
) -> None:
    extra = ["--set", setting] if setting else []
    _minimr("run", job, "--input", str(source), "--output", str(output), "--overwrite",
            "--quiet", *extra)  # fmt: skip


def _minimr(*arguments: str) -> None:
    _quiet([*MINIMR, *arguments])


def _quiet(command: list[str | Path]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _machine() -> dict[str, object]:
    return {
        "cpus": os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "free_disk_bytes": shutil.disk_usage(tempfile.gettempdir()).free,
    }


if __name__ == "__main__":
    sys.exit(main())
