"""``make demo``: a cluster on this machine counts a web log, then the words of real text.

Every step is a command you could type; the demo prints it, runs it and goes on. The cluster's home
is ``.demo`` (``$MINIMR_HOME`` if set), so that ``minimr up --dir .demo`` finds the results again.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

__all__ = ["main"]

MINIMR = [sys.executable, "-m", "minimr"]


def main() -> int:
    """Run the demo; however it ends, the cluster is stopped, unless it ran before."""
    options = _parse_arguments()
    os.environ.setdefault("MINIMR_HOME", str(Path(".demo").absolute()))
    was_running = _is_running()
    try:
        _minimr("up")
        _count_web_log(options.log, options.size)
        _count_words()
    except subprocess.CalledProcessError as error:
        print(f"demo: the command above ended with exit code {error.returncode}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        if not was_running:
            _minimr("down")
    home, folder = (os.path.relpath(path) for path in (os.environ["MINIMR_HOME"], MINIMR[0]))
    print(
        f"\nThe outputs are kept: . {shlex.quote(str(Path(folder).parent / 'activate'))}; "
        f"export MINIMR_HOME={shlex.quote(home)}; minimr up; minimr fs ls /demo"
    )
    return 0


def _is_running() -> bool:
    """Whether a cluster of the user's runs in this home, which is not ours to stop."""
    return subprocess.run([*MINIMR, "status"], capture_output=True, check=False).returncode == 0


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="100MB", help="size of the generated log")
    parser.add_argument("--log", type=Path, help="count a log of your own instead")
    options = parser.parse_args()
    if options.log is not None and not options.log.is_file():
        parser.error(f"--log {options.log} is no file")
    return options


def _count_web_log(log: Path | None, size: str) -> None:
    _title("The ten most requested URLs of a web log")
    _minimr("fs", "mkdir", "-p", "/demo/logs")
    name = log.name if log is not None else "access.log"
    if log is not None:
        _minimr("fs", "put", str(log), f"/demo/logs/{name}")
    else:
        _minimr("data", "access-log", "--size", size, "--seed", "1",
                "--output", f"minigfs:///demo/logs/{name}")  # fmt: skip
    _run("url-count", f"minigfs:///demo/logs/{name}", "minigfs:///demo/url-count")
    _show_top("/demo/url-count", "requests")


def _count_words() -> None:
    _title("The ten most frequent words of Python's own standard library")
    library = Path(sysconfig.get_paths()["stdlib"])
    with tempfile.NamedTemporaryFile(suffix=".txt") as text:
        for source in sorted(library.rglob("*.py")):
            if "site-packages" not in source.parts:
                text.write(source.read_bytes() + b"\n")
        text.flush()
        _minimr("fs", "put", text.name, "/demo/stdlib.txt")
    _run("word-count", "minigfs:///demo/stdlib.txt", "minigfs:///demo/word-count")
    _show_top("/demo/word-count", "times")


def _run(job: str, source: str, output: str) -> None:
    """Run a job and print its phases beside the wall time they add up to."""
    started = time.monotonic()
    done = _minimr("run", job, "--input", source, "--output", output, "--overwrite", "--json",
                   capture=True)  # fmt: skip
    wall_ms = round((time.monotonic() - started) * 1000)
    result = json.loads(done)
    phases = {name: ms for name, ms in result["phases_ms"].items() if name != "total"}
    phases["start and stop of the command"] = wall_ms - sum(phases.values())
    for name, milliseconds in phases.items():
        print(f"  {milliseconds:>7,} ms  {name}")
    print(f"  {wall_ms:>7,} ms  wall time")
    records = result["counters"].get("map.input_records", 0)
    print(f"{records:,} lines; the output lies in {result['output']}\n")


def _show_top(output: str, unit: str) -> None:
    counts = []
    for line in _minimr("fs", "cat", f"{output}/part-*", capture=True).splitlines():
        key, _, value = line.rpartition("\t")
        counts.append((int(value), key))
    counts.sort(key=lambda count: (-count[0], count[1]))
    for count, key in counts[:10]:
        print(f"  {count:>9,} {unit}  {key}")


def _title(text: str) -> None:
    print(f"\n== {text}", flush=True)


def _minimr(*arguments: str, capture: bool = False) -> str:
    print(f"$ minimr {shlex.join(arguments)}", flush=True)
    done = subprocess.run(
        [*MINIMR, *arguments], check=True, stdout=subprocess.PIPE if capture else None
    )
    return done.stdout.decode(errors="replace") if capture else ""


if __name__ == "__main__":
    sys.exit(main())
