"""Threads that decode a class for the first time at once: they crashed the process."""

import subprocess
import sys

SCRIPT = """
import sys, threading
sys.setswitchinterval(1e-6)
import msgspec
from minigfs.transport.codec import decode_body

class Leaf(msgspec.Struct, frozen=True):
    a: int

def fresh(number):
    inner = msgspec.defstruct(
        f"Inner{number}",
        [("x", list[Leaf]), ("y", dict[str, int]), ("z", tuple[int, ...] | None, None)],
    )
    return msgspec.defstruct(f"Outer{number}", [("one", inner), ("many", list[inner])])

body = msgspec.msgpack.encode({"one": {"x": [], "y": {}}, "many": [{"x": [{"a": 1}], "y": {}}]})

def decode(message_type, together):
    together.wait()
    decode_body(body, message_type)

for number in range(100):
    message_type, together = fresh(number), threading.Barrier(4)
    threads = [threading.Thread(target=decode, args=(message_type, together)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
print("whole")
"""


def test_many_threads_may_meet_a_message_type_for_the_first_time_at_once() -> None:
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, check=False, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, b"whole\n"), done.stderr.decode()
