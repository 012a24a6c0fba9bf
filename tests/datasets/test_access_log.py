import gzip
import hashlib
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from minimr.datasets.access_log import URL_COUNT, generate, main, write

COMBINED = re.compile(
    rb"\S+ - (-|user\d+) \[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d \+0000\] "
    rb'"(GET|POST|HEAD|PUT) (/\S*) HTTP/(1\.0|1\.1|2\.0)" \d{3} (\d+|-) "\S+" "[^"]+"'
)
TWO_MB = 2_000_000


def log_of(size_bytes: int, seed: int) -> bytes:
    return b"".join(generate(size_bytes, seed))


@pytest.fixture(scope="module")
def log() -> bytes:
    return log_of(8_000_000, 1)


def test_the_bytes_of_a_seed_never_change() -> None:
    """Benchmarks of different machines and releases compare answers by this."""
    digest = hashlib.sha256(log_of(TWO_MB, 1)).hexdigest()
    assert digest == "0dcd030029835e796d516240e806e13a1557c9caa32b30f3e87e25fe2cec3a22"


def test_a_bigger_log_begins_with_the_smaller_one(log: bytes) -> None:
    for size_bytes in (0, 1, 1000, TWO_MB, 3_500_000):
        smaller = log_of(size_bytes, 1)
        assert log.startswith(smaller)
        next_line_bytes = log.index(b"\n", len(smaller)) + 1 - len(smaller)
        assert len(smaller) <= size_bytes < len(smaller) + next_line_bytes
        assert smaller[-1:] in (b"", b"\n")


def test_seeds_give_different_logs() -> None:
    lines = [set(log_of(100_000, seed).split(b"\n")) for seed in (0, 1, 2, 2**64 - 1)]
    assert all(len(a & b) < len(a) / 10 for a, b in pairwise(lines))


def test_nearly_all_lines_are_in_the_combined_format(log: bytes) -> None:
    lines = log.split(b"\n")[:-1]
    dirty = [line for line in lines if COMBINED.fullmatch(line) is None]
    assert 1 / 5000 < len(dirty) / len(lines) < 1 / 1000
    assert len({line.split(b"] ")[1].split(b"/")[0] for line in dirty}) > 3
    assert log.isascii()
    assert b"\r" not in log


def test_urls_follow_zipfs_law(log: bytes) -> None:
    urls = Counter(match[3] for match in map(COMBINED.fullmatch, log.split(b"\n")) if match)
    counts = [count for _, count in urls.most_common()]
    assert counts[0] == pytest.approx(2 * counts[1], rel=0.2)
    assert counts[0] == pytest.approx(10 * counts[9], rel=0.3)
    assert 10_000 < len(urls) <= URL_COUNT
    assert any(b"?" in url for url in urls)


def test_time_does_not_go_back(log: bytes) -> None:
    seconds = re.findall(rb"\[(\d\d)/Jul/2024:(\d\d):(\d\d):(\d\d) ", log)
    assert len(seconds) > 40_000
    assert all(before <= after for before, after in pairwise(seconds))


def test_a_log_is_written_to_a_path_a_url_and_packed(tmp_path: Path) -> None:
    expected = log_of(TWO_MB, 3)
    plain, packed = tmp_path / "deep" / "er" / "a.log", tmp_path / "a.log.gz"
    assert write(str(plain), size_bytes=TWO_MB, seed=3) == len(expected)
    assert write(packed.as_uri(), size_bytes=TWO_MB, seed=3) == len(expected)
    assert plain.read_bytes() == expected
    assert gzip.decompress(packed.read_bytes()) == expected
    first_packing = packed.read_bytes()
    write(str(packed), size_bytes=TWO_MB, seed=3)
    assert packed.read_bytes() == first_packing


@pytest.mark.parametrize(
    ("size", "size_bytes"), [("5000", 5000), ("20kB", 20_000), ("1MiB", 1 << 20)]
)
def test_the_module_is_a_command(tmp_path: Path, size: str, size_bytes: int) -> None:
    target = tmp_path / "out.log"
    main(["--size", size, "--seed", "9", "--output", str(target)])
    assert target.read_bytes() == log_of(size_bytes, 9)


def test_the_command_refuses_a_size_it_cannot_read(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--size", "lots", "--output", "x"])
    assert "'lots' is no size" in capsys.readouterr().err
