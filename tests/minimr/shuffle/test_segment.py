"""Segments: what is written comes back, and no changed byte goes unseen."""

import os
from pathlib import Path

import pyarrow as pa
import pytest

from minimr.errors import SegmentUnavailable, UnsupportedType
from minimr.pairs import concat_pairs, from_python
from minimr.shuffle.segment import FRAME_BYTES, SegmentReader, SegmentSummary, SegmentWriter


def write(
    path: Path, partitions: list[list[pa.RecordBatch]], compression: str = ""
) -> SegmentSummary:
    with SegmentWriter(path, len(partitions), compression=compression) as writer:
        for index, batches in enumerate(partitions):
            for batch in batches:
                writer.append(index, batch)
        return writer.close()


def read(path: Path, partition_count: int) -> list[list[tuple[object, object]]]:
    with SegmentReader(path) as reader:
        return [
            [
                pair
                for batch in reader.read_pairs(partition)
                for pair in zip(*batch.to_pydict().values(), strict=True)
            ]
            for partition in range(partition_count)
        ]


def test_partitions_come_back_as_written(tmp_path: Path) -> None:
    path = tmp_path / "a" / "x.segment"
    one, two = from_python([b"a", b"b"], [1, 2]), from_python([b"c"], [3])
    summary = write(path, [[one, two], [], [two]])
    assert read(path, 3) == [[(b"a", 1), (b"b", 2), (b"c", 3)], [], [(b"c", 3)]]
    assert summary.record_count == 4
    assert summary.size_bytes == path.stat().st_size
    with SegmentReader(path) as reader:
        assert reader.digest == summary.digest
    assert [each.name for each in path.parent.iterdir()] == ["x.segment"]


def test_a_segment_without_pairs_is_readable(tmp_path: Path) -> None:
    write(tmp_path / "x", [[], []])
    assert read(tmp_path / "x", 2) == [[], []]


def test_large_partitions_are_cut_into_bounded_frames(tmp_path: Path) -> None:
    keys = [b"%06d" % number + b"k" * (number % 500) for number in range(20_000)]
    keys[50] += b"K" * (3 * FRAME_BYTES)  # one row larger than a frame
    pairs = from_python(keys, list(range(20_000))).slice(10)
    write(tmp_path / "x", [[pairs]])
    with SegmentReader(tmp_path / "x") as reader:
        frames = reader.frames_of(0)
        assert len(frames) > 10
        assert sorted(frame.length for frame in frames)[-2] < 1.1 * FRAME_BYTES
        assert concat_pairs(list(reader.read_pairs(0))).equals(concat_pairs([pairs]))


@pytest.mark.parametrize("compression", ["", "lz4", "zstd"])
def test_a_changed_byte_anywhere_is_an_error_and_never_other_pairs(
    tmp_path: Path, compression: str
) -> None:
    path = tmp_path / "x.segment"
    pairs = [[from_python(["a", "b", "b"], [0.5, 2.0, 3.0])], [], [from_python(["c"], [1.0])]]
    write(path, pairs, compression)
    content = path.read_bytes()
    for position in range(len(content)):
        for flip in (0x01, 0x80):
            damaged = bytearray(content)
            damaged[position] ^= flip
            path.write_bytes(damaged)
            with pytest.raises(SegmentUnavailable):
                read(path, 3)


def test_a_segment_cut_short_anywhere_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x.segment"
    write(path, [[from_python([b"a"], [1])]])
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(SegmentUnavailable):
            read(path, 1)


def test_a_missing_segment_and_a_missing_partition_are_unavailable(tmp_path: Path) -> None:
    with pytest.raises(SegmentUnavailable, match="No such file"):
        SegmentReader(tmp_path / "none")
    write(tmp_path / "x", [[]])
    with SegmentReader(tmp_path / "x") as reader, pytest.raises(SegmentUnavailable):
        reader.frames_of(1)


def test_an_abandoned_segment_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedType):
        write(tmp_path / "x", [[from_python([b"a"], [1]), from_python(["a"], [1])]])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_packed_frames_are_smaller_and_come_back_the_same(tmp_path: Path, compression: str) -> None:
    pairs = from_python([b"k%05d" % number for number in range(9_000)], [1] * 9_000)
    plain = write(tmp_path / "plain", [[pairs], [pairs]])
    packed = write(tmp_path / "packed", [[pairs], [pairs]], compression)
    assert packed.size_bytes < plain.size_bytes / 2
    assert read(tmp_path / "packed", 2) == read(tmp_path / "plain", 2)


def test_what_a_reader_reads_of_one_partition_does_not_grow_with_their_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reduce task p of 2,000 opens the segments of 2,000 maps: it may not read all partitions'."""
    pread, sizes = os.pread, list[int]()
    monkeypatch.setattr(os, "pread", lambda *what: sizes.append(what[1]) or pread(*what))
    pairs = from_python([b"k"], [1])
    read_bytes = []
    for count in (300, 2_000):
        write(tmp_path / str(count), [[pairs]] * count)
        sizes.clear()
        with SegmentReader(tmp_path / str(count)) as reader:
            assert len(reader.frames_of(count - 1)) == 1
        read_bytes.append(sum(sizes))
    assert read_bytes[0] == read_bytes[1] < 6_000
