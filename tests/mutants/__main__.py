"""``python -m tests.mutants``: plant mutants and report who kills them.

    python -m tests.mutants                  all of them, their named tests
    python -m tests.mutants r01 'r3*'        some, by name, by the part before the dash, by pattern
    python -m tests.mutants --slice 6        six of them, other ones every day
    python -m tests.mutants --seeds 2000     the simulator too, up to so many seeds each; what
                                             results.json knows already is not run again
    python -m tests.mutants --record         keep what is found in results.json and docs/mutants.md
    python -m tests.mutants --table          write docs/mutants.md anew from results.json

Exit status 1 if one survives or the unchanged source fails, 2 if one cannot be planted.
"""

import argparse
import datetime as dt
import fnmatch
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.mutants.campaign import Outcome, Tree
from tests.mutants.mutant import Misplanted, Mutant, load_catalogue
from tests.mutants.results import (
    TABLE,
    Result,
    SimulatorResult,
    load_results,
    render_table,
    save_results,
)

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    catalogue = load_catalogue()
    if options.table:
        TABLE.write_text(render_table(catalogue, load_results()))
        return 0
    try:
        chosen = _choose(catalogue, options.names, options.slice)
        return _run(chosen, options)
    except Misplanted as error:
        print(error, file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--slice", type=int, default=0, metavar="N")
    parser.add_argument("--seeds", type=int, default=0, metavar="N")
    parser.add_argument("--no-tests", action="store_true", help="the simulator alone")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--table", action="store_true")
    return parser


def _choose(catalogue: Sequence[Mutant], names: Sequence[str], size: int) -> list[Mutant]:
    if size:
        day = dt.datetime.now(tz=dt.UTC).toordinal()
        first = day * size % len(catalogue)
        return [*catalogue, *catalogue][first : first + min(size, len(catalogue))]
    if not names:
        return list(catalogue)
    chosen = [mutant for mutant in catalogue if any(_is_named(mutant, name) for name in names)]
    if not chosen:
        raise Misplanted(f"no mutant is named {' or '.join(names)}")
    return chosen


def _is_named(mutant: Mutant, name: str) -> bool:
    return name == mutant.name.partition("-")[0] or fnmatch.fnmatchcase(mutant.name, name)


def _run(chosen: Sequence[Mutant], options: argparse.Namespace) -> int:
    names = {mutant.name for mutant in load_catalogue()}
    results = {name: result for name, result in load_results().items() if name in names}
    bad = 0
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        clean = Tree.copy_of_sources(Path(folder) / "clean")
        if not options.no_tests and not _clean_passes(clean, chosen):
            return 1
        for mutant in chosen:
            started = time.monotonic()
            tree = clean.with_mutant(mutant, Path(folder) / mutant.name)
            result = _try_one(mutant, tree, results.get(mutant.name), options)
            tree.remove()
            bad += not result.killed
            results[mutant.name] = result
            if options.record:
                save_results(results)
                TABLE.write_text(render_table(load_catalogue(), results))
            print(f"{time.monotonic() - started:7.1f} s", flush=True)
    print(f"{len(chosen) - bad} of {len(chosen)} mutants killed")
    return 1 if bad else 0


def _clean_passes(clean: Tree, chosen: Sequence[Mutant]) -> bool:
    """The killers pass where nothing is planted; otherwise their failing would mean nothing."""
    nodes = [node for mutant in chosen for node in mutant.killed_by]
    verdict = clean.run_tests(nodes)
    if verdict.output and not verdict.failed and verdict.outcome is not Outcome.BROKEN:
        return True
    print(f"the source fails without any mutant:\n{verdict.output}", file=sys.stderr)
    return False


def _try_one(
    mutant: Mutant, tree: Tree, before: Result | None, options: argparse.Namespace
) -> Result:
    print(f"{mutant.name:44}", end=" ", flush=True)
    same = before is not None and before.fingerprint == mutant.fingerprint
    killed = bool(same and before and before.killed)
    simulator = before.simulator if same and before else None
    if not options.no_tests:
        verdict = tree.run_tests(mutant.killed_by)
        killed = verdict.outcome is Outcome.KILLED
        print(f"{verdict.outcome.value:9}", end=" ")
        if not killed:
            missed = [node for node in mutant.killed_by if node not in verdict.failed]
            print("\n    not by", *missed, f"\n    {verdict.first_line}", end=" ")
    if options.seeds and mutant.simulator:
        if simulator is None or not simulator.answers(options.seeds):
            simulator = tree.run_simulator(options.seeds)
        print(_say(simulator), end=" ")
    return Result(fingerprint=mutant.fingerprint, killed=killed, simulator=simulator)


def _say(simulator: SimulatorResult | None) -> str:
    if simulator is None:
        return "the simulator was ended from outside"
    if simulator.killed_in is None:
        return f"no seed of {simulator.seeds} finds it"
    return f"seed {simulator.killed_in} finds it ({simulator.reason[:60]})"


if __name__ == "__main__":
    sys.exit(main())
