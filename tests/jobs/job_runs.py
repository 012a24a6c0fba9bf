"""Whole runs of standard jobs, each with another number of maps, reducers and blocks."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import minimr
from minimr.format_options import is_format_setting
from minimr.registry import load_job
from minimr.runner import Result
from tests.oracles import lines_of

__all__ = ["JobRuns", "write_tree"]


def write_tree(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


@dataclass
class JobRuns:
    """Runs jobs below ``directory`` with what ``rng`` draws."""

    directory: Path
    rng: random.Random
    count: int = 0
    processes: int | None = None
    split_sizes: tuple[int | None, ...] = (None, 1000, 10_007, 150_001)

    def run(self, name: str, source: Path, settings: Mapping[str, str]) -> Result:
        """One run; the combiner is left out in one of three."""
        job = load_job(name, {n: v for n, v in settings.items() if not is_format_setting(n)})
        if self.rng.random() < 1 / 3:
            job = replace(job, combine=None)
        self.count += 1
        return minimr.run(
            job,
            input=str(source),
            output=str(self.directory / f"out-{self.count}"),
            reducers=None if job.is_map_only else self.rng.choice([1, 2, 5]),
            split_size=self.rng.choice(self.split_sizes),
            processes=self.processes or self.rng.choice([None, 0]),
            settings=settings,
        )

    def answer(self, name: str, source: Path, **settings: str) -> dict[bytes, bytes]:
        """The output as a dictionary; a key that comes twice is an error."""
        result = self.run(name, source, settings)
        answer: dict[bytes, bytes] = {}
        for part in self.parts(result):
            for line in lines_of(part):
                key, _, value = line.partition(b"\t")
                assert key not in answer, f"{key!r} twice"
                answer[key] = value
        return answer

    def parts(self, result: Result) -> list[bytes]:
        folder = Path(result.output.removeprefix("file://"))
        names = sorted(path.name for path in folder.glob("part-*"))
        assert names == [part.name for part in result.parts]
        return [(folder / name).read_bytes() for name in names]
