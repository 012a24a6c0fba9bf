"""gensort and valsort against what the reference programs give (versions 1.5 and 1.1)."""

import hashlib
import itertools
import json
import random
import zlib
from functools import reduce
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from minimr.cli import cli
from minimr.datasets import gensort, valsort
from minimr.datasets.gensort import Format, generate
from minimr.datasets.valsort import checksum, join, summarize, validate
from minimr.errors import UnreadableInput

MODES: list[tuple[Format, bool]] = [
    ("binary", False), ("ascii", False), ("binary", True), ("ascii", True), ("v1.1", False),
]  # fmt: skip
CHECKSUMS = {
    1000: "1ea6370b955 1f5dfb3631a 1e96301166b 1eef17d1cac 1f9ffe645ec",
    3000: "5d28248a65f 5e03884acd8 5cbadc00e0c 5cd2c24200d",
    100_000: "c3068574c6ff c34e19c81885 c3480c053dda c30e6c1fe3e5",
    1_000_000: "7a0e0d4868cd4 7a19cff467438 79f9a7e6de673 7a135fbce6df2",
}
RECORD_0 = (
    "4a696d4772617952495065080060836b392cd58b8f5e55961855e79b87f02283a466b6aab1f9e0cacf1e26b3292afd"
    "1064bb18b56ac07d6f656b1d2f430d57bde7e47d81f36a6dd267948bbc2397bfe28c334e4ad82b8e70166293cfaa01"
    "16bfda3bb1ab"
)
A, C = 0x2360ED051FC65DA44385DF649FCCF645, 0x4A696D47726179524950202020202001


def key(number: int, form: Format, *, skew: bool = False) -> bytes:
    return generate(number, 1, form, skew=skew)[0, :10].tobytes()


@pytest.mark.parametrize(
    ("mode", "count", "expected"),
    [
        (mode, count, expected)
        for count, row in CHECKSUMS.items()
        for mode, expected in zip(MODES, row.split(), strict=False)
    ],
)
def test_checksums_are_those_of_the_reference(
    mode: tuple[Format, bool], count: int, expected: str
) -> None:
    records = generate(0, count, mode[0], skew=mode[1])
    assert f"{checksum(records):x}" == expected


def test_records_are_those_of_the_reference() -> None:
    assert generate(0, 1)[0].tobytes().hex() == RECORD_0
    assert key(0, "binary") == b"JimGrayRIP"
    assert key(0, "ascii") == b"AsfAGHM5om"
    assert key(1, "binary").hex() == "95e0e48262b3edfe0447"
    assert key(1, "ascii") == b"~sHd0jDv6X"
    assert key(999, "binary").hex() == "4d15a82070c03ee39bf5"
    assert key(999, "ascii").hex() == "21273d60456842382244"
    assert key(1000, "binary").hex() == "8b7c5047a5ec0be014b8"
    assert key(1000, "ascii").hex() == "7a56572a782553222e52"
    assert key(6, "binary").hex() == "10431af6a0d847b8c55f"
    assert key(6, "ascii").hex() == "30667373787d7e5b6f42"
    for number in (0, 1, 6, 999, 1000):
        assert key(number, "v1.1") == key(number, "binary")


def test_skewed_keys_are_those_of_the_reference() -> None:
    assert key(999, "binary", skew=True) == key(999, "binary")
    assert key(999, "ascii", skew=True).hex() == "60506b58516842382244"
    assert key(1000, "binary", skew=True).hex() == "b3e95047a5ec0be014b8"
    assert key(1000, "ascii", skew=True) == key(1000, "ascii")
    assert key(6, "binary", skew=True).hex() == "88031af6a0d847b8c55f"
    assert key(6, "ascii", skew=True).hex() == "51297373787d7e5b6f42"


def test_records_far_away_are_found_by_skipping_ahead() -> None:
    assert f"{checksum(generate(10**12, 1000)):x}" == "1ecbffe299b"


def test_states_are_those_of_the_generator_one_step_after_the_other() -> None:
    state = 0
    for number in range(20_100):  # more than two batches
        state = (A * state + C) % (1 << 128)
        if number % 97 == 0 or 8180 < number < 8200:
            assert key(number, "binary") == (state >> 48).to_bytes(10, "big")


@pytest.mark.parametrize(("form", "skew"), MODES)
def test_a_range_is_a_piece_of_the_whole(form: Format, skew: bool) -> None:
    whole = generate(5, 20_000, form, skew=skew)
    for first, count in ((5, 1), (8190, 10), (16_000, 4005), (20_004, 1), (100, 0)):
        piece = generate(first, count, form, skew=skew)
        assert np.array_equal(piece, whole[first - 5 : first - 5 + count])


@pytest.mark.parametrize("threads", [1, 3])
def test_pieces_in_parallel_are_the_whole_in_order(threads: int) -> None:
    pieces = list(gensort.pieces(3, 200_001, threads=threads))
    assert len(pieces) > 2
    assert np.array_equal(np.concatenate(pieces), generate(3, 200_001))


# --- valsort ---


def records_of(keys: list[bytes]) -> bytes:
    return b"".join(key.ljust(10, b"\0") + bytes(90) for key in keys)


def plain_answer(keys: list[bytes]) -> tuple[int, int, int, int]:
    """(first unordered, unordered, duplicates, checksum), a record at a time."""
    pairs = list(enumerate(itertools.pairwise(key.ljust(10, b"\0") for key in keys), 1))
    unordered = [index for index, (before, after) in pairs if after < before]
    duplicates = sum(after == before for _, (before, after) in pairs)
    total = sum(zlib.crc32(key.ljust(10, b"\0") + bytes(90)) for key in keys)
    return (unordered or [0])[0], len(unordered), duplicates, total


@pytest.mark.parametrize("seed", range(20))
def test_summaries_of_pieces_join_to_that_of_the_whole(seed: int) -> None:
    rng = random.Random(seed)
    alphabet = [b"a", b"b", b"\xff", b"aaaaaaaa\1", b"aaaaaaaa\2", b"aaaaaaaa\1\1", b"\x80", b""]
    keys = rng.choices(alphabet, k=rng.randrange(1, 30))
    if seed % 2:
        keys.sort()
    rows = np.frombuffer(records_of(keys), np.uint8).reshape(-1, 100)
    cuts = sorted({0, len(keys), *(rng.randrange(len(keys) + 1) for _ in range(4))})
    parts = [summarize(rows[start:end]) for start, end in itertools.pairwise(cuts)]
    found = reduce(join, parts)
    assert found == summarize(rows)
    answer = (
        found.first_unordered, found.unordered_count, found.duplicate_count, found.checksum
    )  # fmt: skip
    assert answer == plain_answer(keys)
    assert (found.record_count, found.last_record) == (len(keys), rows[-1].tobytes())
    packed = b"".join(part.to_bytes() for part in parts)
    assert len(packed) == 280 * len(parts)
    assert valsort.read_summaries(packed) == found


def test_a_summary_has_the_bytes_of_the_reference() -> None:
    """Ten little-endian words, the upper half of each number first, then two records."""
    content = summarize(generate(0, 3)).to_bytes()
    words = np.frombuffer(content[:80], "<u8").tolist()
    total = checksum(generate(0, 3))
    assert words == [0, 2, 0, 1, 0, 3, 0, 0, 0, total]
    assert content[80:] == generate(0, 1).tobytes() + generate(2, 1).tobytes()


def test_a_directory_is_read_in_order_of_names_and_hidden_files_are_not(tmp_path: Path) -> None:
    rows = generate(0, 900)
    rows = rows[np.lexsort(rows[:, 9::-1].T)]
    for name, piece in (("part-2", rows[400:]), ("part-0", rows[:400]), ("part-1", rows[:0])):
        (tmp_path / name).write_bytes(piece.tobytes())
    (tmp_path / "_manifest.json").write_bytes(b"{}")
    found = validate(str(tmp_path))
    assert (found.unordered_count, found.record_count) == (0, 900)
    assert found.checksum == checksum(generate(0, 900))


@pytest.mark.parametrize("processes", [1, 2])
def test_big_files_are_looked_at_in_ranges(
    tmp_path: Path, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(valsort, "_RANGE_BYTES", 1 << 20)
    monkeypatch.setattr(valsort, "_PARALLEL_BYTES_MIN", 0)
    gensort.write(f"{tmp_path}/deep/records", records=50_000)
    found = validate(f"{tmp_path}/deep/records", processes=processes)
    assert found == summarize(generate(0, 50_000))


def test_ragged_and_empty_files_are_errors(tmp_path: Path) -> None:
    (tmp_path / "ragged").write_bytes(bytes(150))
    (tmp_path / "empty").touch()
    with pytest.raises(UnreadableInput, match="50 of them are behind its last whole record"):
        validate(str(tmp_path / "ragged"))
    with pytest.raises(UnreadableInput, match="no records"):
        validate(str(tmp_path / "empty"))
    with pytest.raises(UnreadableInput, match="no summaries"):
        valsort.read_summaries(bytes(281))


def test_the_commands_write_check_and_exit_as_the_reference_does(tmp_path: Path) -> None:
    run = CliRunner().invoke
    file = str(tmp_path / "records")
    assert run(cli, ["data", "gensort", "--records", "1000", "-o", file]).exit_code == 0
    digest = hashlib.sha256((tmp_path / "records").read_bytes()).hexdigest()
    assert digest == hashlib.sha256(generate(0, 1000).tobytes()).hexdigest()

    answer = run(cli, ["data", "valsort", file, "--summary", str(tmp_path / "sum")])
    assert answer.exit_code == 1
    assert answer.stdout.splitlines()[:2] == [
        "First unordered record is record 2", "Records: 1000",
    ]  # fmt: skip
    assert "Checksum: 1ea6370b955" in answer.stdout
    again = run(cli, ["data", "valsort", "--summaries", str(tmp_path / "sum"), "--json"])
    assert again.exit_code == 1
    assert json.loads(again.stdout)["first_unordered"] == 2

    rows = generate(0, 1000)
    rows = rows[np.lexsort(rows[:, 9::-1].T)]
    (tmp_path / "records").write_bytes(rows.tobytes())
    answer = run(cli, ["data", "valsort", file])
    assert answer.exit_code == 0
    assert answer.stdout.splitlines() == [
        "Records: 1000", "Checksum: 1ea6370b955", "Duplicate keys: 0",
        "SUCCESS - all records are in order",
    ]  # fmt: skip
