"""Each attempt's output in a file of its own, without a file made for each that prints nothing."""

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import os, sys
from minimr.tasks.attempt_log import AttemptLog
log, folder = AttemptLog(), sys.argv[1]
def begin(name):
    log.begin(f"{folder}/{name}.log")
begin("silent")
begin("loud")
print("out", flush=True)
os.system("echo child")
print("error", file=sys.stderr, flush=True)
begin("cut")
print("much", flush=True)
os.truncate(f"{folder}/cut.log", 0)  # its supervisor keeps what it took out elsewhere
begin("cleared away")
os.unlink(f"{folder}/cleared away.log")
begin("last")
print("end", flush=True)
"""


def test_what_an_attempt_prints_is_in_its_own_file(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path)], check=True)
    found = {file.stem: file.read_bytes() for file in tmp_path.iterdir()}
    assert found == {"loud": b"out\nchild\nerror\n", "cut": b"", "last": b"end\n"}
