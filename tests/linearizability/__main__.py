"""Judge a recorded history: ``python -m tests.linearizability FILE --model kv``.

Exit code 0: linearizable; 1: not; 2: the file or the command line is wrong; 3: unknown.
"""

import argparse
import sys
import time
from pathlib import Path

from tests.linearizability.checker import Answer, Budget, check
from tests.linearizability.history import InvalidHistory, load_history
from tests.linearizability.jepsen_log import parse_jepsen_log
from tests.linearizability.models import MODELS, RegisterModel, UnknownCall

__all__ = ["main"]

EXIT_CODES = {Answer.OK: 0, Answer.ILLEGAL: 1, Answer.UNKNOWN: 3}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.linearizability", description=__doc__)
    parser.add_argument("file", type=Path, help="history as JSON lines")
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--model", choices=sorted(MODELS), help="what it is a history of")
    kind.add_argument("--jepsen", action="store_true", help="it is a log of Jepsen's etcd test")
    parser.add_argument("--steps", type=int, default=20_000_000, help="give up after that many")
    parser.add_argument("--seconds", type=float, default=300.0, help="give up after that long")
    told = parser.parse_args(arguments)
    deadline = time.monotonic() + told.seconds
    budget = Budget(steps=told.steps, expired=lambda: time.monotonic() > deadline)
    try:
        if told.jepsen:
            operations = parse_jepsen_log(told.file.read_text().splitlines())
        else:
            operations = load_history(told.file)
        model = RegisterModel() if told.jepsen else MODELS[told.model]
        verdict = check(operations, model, budget)
    except (OSError, InvalidHistory, UnknownCall) as error:
        print(f"{told.file}: {error}", file=sys.stderr)
        return 2
    print(verdict)
    return EXIT_CODES[verdict.answer]


if __name__ == "__main__":
    sys.exit(main())
