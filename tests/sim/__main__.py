"""``python -m tests.sim --seed 7``: run seeds of the simulator, replay one, shrink one."""

import argparse
import logging
import sys
from pathlib import Path

from tests.sim.campaign import (
    EVENTS,
    Run,
    Totals,
    perform,
    report_failure,
    results_of,
    summary,
    with_seed,
)
from tests.sim.shrink import shrink


def main() -> int:
    arguments = _parser().parse_args()
    logging.disable()  # full disks and damaged files are daily bread here
    run = Run(
        seed=arguments.seed,
        events=arguments.events,
        storage=arguments.storage,
        settings=dict(setting.split("=", 1) for setting in arguments.set),
        without=tuple(int(number) for number in arguments.without.split(",") if number),
    )
    if arguments.count == 1:
        return _one(run, arguments)
    return _many(run, arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--count", type=int, default=1, help="how many seeds from there on")
    parser.add_argument("--events", type=int, default=EVENTS, help="messages delivered at least")
    parser.add_argument(
        "--storage", action="store_true", help="chunkservers and clients, not the masters' log"
    )
    parser.add_argument("--jobs", type=int, default=1, help="processes to use")
    parser.add_argument("--trace", type=Path, help="write every event of the seed to this file")
    parser.add_argument("--shrink", action="store_true", help="make a failing run small")
    parser.add_argument("--stop", action="store_true", help="stop at the first violation")
    parser.add_argument("--quiet", action="store_true", help="no line for every seed")
    parser.add_argument(
        "--set", action="append", default=[], metavar="OPTION=VALUE", help="change the world"
    )
    parser.add_argument("--without", default="", metavar="N,N", help="leave out these faults")
    return parser


def _one(run: Run, arguments: argparse.Namespace) -> int:
    if arguments.trace is None:
        result = perform(run)
    else:
        with arguments.trace.open("w") as file:
            result = perform(run, file)
    if result.violation is not None and arguments.shrink:
        run, result = shrink(run, result, lambda line: print(line, file=sys.stderr))
    if result.violation is not None:
        print(report_failure(run, result))
        return 1
    print(summary(result))
    return 0


def _many(run: Run, arguments: argparse.Namespace) -> int:
    runs = [with_seed(run, run.seed + offset) for offset in range(arguments.count)]
    totals = Totals()
    for each, result in zip(runs, results_of(runs, arguments.jobs), strict=False):
        totals.add(result)
        if not arguments.quiet:
            print(summary(result), flush=True)
        if result.violation is not None:
            print(report_failure(each, result), flush=True)
            if arguments.stop:
                break
    print(totals)
    return 1 if totals.failed else 0


if __name__ == "__main__":
    sys.exit(main())
