"""A byte of a map output changes between map and reduce: that map runs again, and nothing else."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import minimr

LINES = [b"%d" % number for number in range(6)]


class DamagingMap:
    """Emits its lines; with the last one it flips a byte of the first map's segment."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.position: int | None = None
        self.segment_bytes = 0

    def __call__(self, line: bytes) -> Iterator[tuple[bytes, bytes]]:
        yield b"%d" % (int(line) % 3), line
        if line == LINES[-1]:
            (segment,) = self.place.glob("minimr-*/*/m-00000*.segment")
            content = bytearray(segment.read_bytes())
            self.segment_bytes = len(content)
            if self.position is not None:
                content[self.position] ^= 0x10
                segment.write_bytes(content)
                self.position = None


def identity(key: bytes, values: Iterator[bytes]) -> Iterator[tuple[bytes, bytes]]:
    return ((key, value) for value in values)


def run(damage: DamagingMap, position: int | None) -> tuple[list[bytes], dict[str, int]]:
    damage.position = position
    result = minimr.run(
        minimr.Job("damaged", map=damage, reduce=identity),
        input=str(damage.place / "in"), output=str(damage.place / "out"), overwrite=True,
        reducers=2, split_size=4, processes=0,
    )  # fmt: skip
    parts = [(damage.place / "out" / part.name).read_bytes() for part in result.parts]
    return parts, dict(result.counters)


@pytest.fixture
def damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DamagingMap:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "in").write_bytes(b"".join(line + b"\n" for line in LINES))
    return DamagingMap(tmp_path)


def test_whichever_byte_it_is_the_output_is_the_same_and_one_map_runs_again(
    damage: DamagingMap,
) -> None:
    wanted, counters = run(damage, None)
    assert counters["map.attempts.launched"] == counters["map.attempts.committed"] == 3
    positions = range(0, damage.segment_bytes, 29)
    for position in positions:
        parts, counters = run(damage, position)
        assert parts == wanted, position
        assert counters["map.attempts.launched"] == 4, position
        assert counters["map.attempts.lost"] == 1, position
        assert counters["shuffle.bad_frames"] == 1, position
        assert counters["map.input_records"] == len(LINES), position
    assert len(positions) > 30


def test_nothing_is_left_of_the_segments(damage: DamagingMap) -> None:
    run(damage, 100)
    assert list(damage.place.glob("minimr-*")) == []
