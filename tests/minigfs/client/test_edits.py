"""Edits of a file come to what they would on a file in memory, whatever its chunks."""

from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from minigfs.client.edits import Edits

CHUNK_BYTES = 8

edits_lists = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 40), st.binary(min_size=0, max_size=20)),
        st.tuples(st.just("truncate"), st.integers(0, 50), st.just(b"")),
    ),
    max_size=6,
)


def changed(content: bytes, edits: list[tuple[str, int, bytes]]) -> bytes:
    file = bytearray(content)
    for kind, at, data in edits:
        if kind == "truncate":
            file = file[:at].ljust(at, b"\0")
        elif data:
            file = file.ljust(at, b"\0")
            file[at : at + len(data)] = data
    return bytes(file)


@given(st.lists(st.integers(1, CHUNK_BYTES), max_size=5), edits_lists)
def test_edits_on_any_chunks_are_those_of_a_file_in_memory(
    lengths: list[int], asked: list[tuple[str, int, bytes]]
) -> None:
    base = bytes(65 + i % 26 for i in range(sum(lengths)))
    starts = list(accumulate(lengths, initial=0))[:-1]
    chunks = [base[s : s + n] for s, n in zip(starts, lengths, strict=True)]
    edits = Edits()
    for kind, at, data in asked:
        if kind == "truncate":
            edits.truncate(at)
        else:
            edits.write(at, data)
    kept_count, made = edits.plan(starts, len(base), CHUNK_BYTES)
    result = chunks[:kept_count]
    for one in made:
        content = edits.content(one, len(base), lambda at, length: base[at : at + length])
        assert len(content) == one.length_bytes <= CHUNK_BYTES
        if one.index == len(result):
            result.append(b"")
        if one.index < len(lengths) - 1 and one.index < kept_count - 1:
            assert len(content) == lengths[one.index], "a chunk inside keeps its length"
        result[one.index] = bytes(content)
    assert b"".join(result) == changed(base, asked)
    assert edits.size(len(base)) == len(b"".join(result))
    assert all(result), "no chunk is empty"


def test_only_the_chunks_that_are_touched_are_made() -> None:
    edits = Edits()
    edits.write(9, b"x")
    kept_count, made = edits.plan([0, 8, 16], 20, CHUNK_BYTES)
    assert (kept_count, [one.index for one in made]) == (3, [1])


def test_writes_that_follow_each_other_are_kept_as_one() -> None:
    edits = Edits()
    for position in range(100):
        edits.write(position, b"x")
    assert len(edits._writes) == 1
