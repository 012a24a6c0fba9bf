"""``make bench``: url-count of one log, ours beside Polars, awk and gunzip in the same run.

Each command is a whole process, start to exit, on input in the page cache. Commands take turns, so
that a machine that slows down slows all of them; medians are printed, and kept with the machine in
``benchmarks/results/url_count.json``.
"""

import argparse
import json
import os
import platform
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
MINIMR = [sys.executable, "-m", "minimr"]


def main() -> int:
    """Measure, print a table, keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--local-size", default="110MB")
    parser.add_argument("--cluster-size", default="1GB")
    parser.add_argument("--no-cluster", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="minimr-bench-") as folder:
        os.environ["MINIMR_HOME"] = f"{folder}/home"
        figures = _local(Path(folder), options.local_size, options.runs)
        if not options.no_cluster:
            figures |= _cluster(Path(folder), options.cluster_size, options.runs)
    report = {"machine": _machine(), "seconds": figures}
    target = Path(__file__).parent / "results" / "url_count.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(report, indent=2) + "\n")
    return 0


def _local(folder: Path, size: str, runs: int) -> dict[str, dict[str, float]]:
    log, packed, out = folder / "local.log", folder / "local.log.gz", folder / "out"
    _minimr("data", "access-log", "--size", size, "--output", str(log))
    packed.write_bytes(subprocess.run(["gzip", "-6", "-c", log], check=True, stdout=-1).stdout)
    script = folder / "polars_count.py"
    script.write_text(POLARS)
    return _race(
        f"local backend, {size}",
        {
            "minimr field=7": lambda: _run_job(log, out, "field=7"),
            "minimr quoted URL": lambda: _run_job(log, out, None),
            "polars field=7": lambda: _quiet([sys.executable, script, log, folder / "polars.tsv"]),
            "awk field=7": lambda: _quiet(["awk", "{c[$7]++} END{for(k in c)print k,c[k]}", log]),
            "minimr quoted URL, .gz": lambda: _run_job(packed, out, None),
            "gunzip": lambda: _quiet(["gunzip", "-c", packed]),
        },
        runs,
    )


def _cluster(folder: Path, size: str, runs: int) -> dict[str, dict[str, float]]:
    log = folder / "cluster.log"
    script = folder / "polars_count.py"
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
                "polars field=7, big": lambda: _quiet(
                    [sys.executable, script, log, folder / "polars.tsv"]
                ),
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
    for turn in range(runs + 1):
        for name, command in commands.items():
            started = time.perf_counter()
            command()
            if turn:
                seconds[name].append(time.perf_counter() - started)
    print(f"\n{title}: seconds, median (min to max) of {runs}")
    figures = {}
    for name, values in seconds.items():
        figures[name] = {
            "median": round(statistics.median(values), 3),
            "min": round(min(values), 3),
            "max": round(max(values), 3),
        }
        spread = f"({min(values):.2f} to {max(values):.2f})"
        print(f"  {name:<28} {statistics.median(values):6.2f}  {spread}")
    return figures


def _run_job(source: Path | str, output: Path | str, setting: str | None) -> None:
    extra = ["--set", setting] if setting else []
    _minimr("run", "url-count", "--input", str(source), "--output", str(output), "--overwrite",
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
