"""The order of mutations: what a primary plans, what the others accept, what a retry is told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigfs.chunkserver.append_messages import BatchRecord
from minigfs.chunkserver.append_slots import SLOT_BYTES, decode_slot, encode_slot, slot_of
from minigfs.chunkserver.mutations import APPENDERS_MAX, FULL, STALE, Batch, LastRecord, Mutations
from minigfs.errors import WriterFenced
from minigfs.ids import ChunkHandle

HANDLE = ChunkHandle(9)


def record(appender: int, sequence: int, length: int = 10) -> BatchRecord:
    return BatchRecord(appender_id=appender, sequence=sequence, length_bytes=length, sum=0)


def applied(mutations: Mutations, *records: BatchRecord) -> list[int]:
    batch, offsets = mutations.plan(records)
    if batch.records:
        mutations.check(batch)
        mutations.apply(batch)
    return offsets


def test_records_follow_each_other_in_the_order_they_waited() -> None:
    mutations = Mutations(chunk_bytes=100)
    assert applied(mutations, record(1, 1, 10), record(2, 1, 20)) == [0, 10]
    assert applied(mutations, record(1, 2, 5)) == [30]
    assert (mutations.serial, mutations.length_bytes) == (2, 35)


def test_a_record_sent_again_keeps_its_offset_also_within_one_batch() -> None:
    mutations = Mutations(chunk_bytes=100)
    assert applied(mutations, record(1, 1), record(1, 1), record(2, 1)) == [0, 0, 10]
    assert applied(mutations, record(1, 1)) == [0]
    assert mutations.length_bytes == 20


def test_a_record_that_its_appender_has_left_behind_is_not_appended() -> None:
    mutations = Mutations(chunk_bytes=100)
    applied(mutations, record(1, 2))
    assert applied(mutations, record(1, 1)) == [STALE]


def test_a_record_without_room_is_refused_and_a_smaller_one_still_fits() -> None:
    mutations = Mutations(chunk_bytes=25)
    assert applied(mutations, record(1, 1, 20), record(2, 1, 10), record(3, 1, 5)) == [0, FULL, 20]


def test_a_chunk_takes_no_more_appenders_than_a_slot_can_name() -> None:
    mutations = Mutations(chunk_bytes=1 << 20)
    many = [record(appender, 1, 1) for appender in range(APPENDERS_MAX + 1)]
    assert applied(mutations, *many)[-2:] == [APPENDERS_MAX - 1, FULL]
    slot = slot_of(mutations, handle=HANDLE, before_bytes=0, partial_sum=7)
    assert len(encode_slot(slot)) <= SLOT_BYTES


def test_whoever_missed_a_mutation_refuses_the_next() -> None:
    mutations = Mutations(chunk_bytes=100)
    with pytest.raises(WriterFenced):
        mutations.check(Batch(serial=2, offset_bytes=10, records=(record(1, 2),)))
    with pytest.raises(WriterFenced):
        mutations.check(Batch(serial=1, offset_bytes=10, records=(record(1, 2),)))


def test_a_frozen_replica_plans_and_accepts_nothing() -> None:
    mutations = Mutations(chunk_bytes=100)
    batch, _ = mutations.plan([record(1, 1)])
    mutations.freeze()
    with pytest.raises(WriterFenced):
        mutations.plan([record(1, 1)])
    with pytest.raises(WriterFenced):
        mutations.check(batch)


def test_cutting_forgets_the_records_that_are_cut_and_no_other() -> None:
    mutations = Mutations(chunk_bytes=100)
    applied(mutations, record(1, 1), record(2, 1))
    mutations.freeze()
    mutations.cut(10)
    assert (mutations.find(1, 1), mutations.find(2, 1)) == (0, -1)


@given(
    st.lists(
        st.lists(st.tuples(st.integers(1, 4), st.integers(1, 30)), min_size=1, max_size=5),
        max_size=12,
    ),
)
def test_replicas_that_apply_the_same_batches_are_the_same(
    batches: list[list[tuple[int, int]]],
) -> None:
    """And a replica recovered from its slot is one of them."""
    primary, other = Mutations(chunk_bytes=400), Mutations(chunk_bytes=400)
    sequences: dict[int, int] = {}
    for waiting in batches:
        records = []
        for appender, length in dict(waiting).items():  # one at a time of each appender
            sequences[appender] = sequences.get(appender, 0) + 1
            records.append(record(appender, sequences[appender], length))
        before = primary.length_bytes
        batch, offsets = primary.plan(records)
        assert sum(r.length_bytes for r in batch.records) == batch.end_bytes - before
        if batch.records:
            other.check(batch)
            primary.apply(batch)
            other.apply(batch)
        for planned, offset in zip(records, offsets, strict=True):
            assert offset == FULL or primary.find(planned.appender_id, planned.sequence) >= before
    assert primary == other
    encoded = encode_slot(slot_of(primary, handle=HANDLE, before_bytes=0, partial_sum=0))
    slot = decode_slot(encoded.ljust(SLOT_BYTES, b"\0"), HANDLE)
    assert slot is not None
    other.freeze()
    assert slot.mutations(400) == other


def test_a_torn_slot_or_that_of_another_chunk_is_none() -> None:
    mutations = Mutations(chunk_bytes=100, last_records={1: LastRecord(1, 0, 5)})
    encoded = encode_slot(slot_of(mutations, handle=HANDLE, before_bytes=0, partial_sum=0))
    assert decode_slot(encoded, HANDLE) is not None
    assert decode_slot(encoded, ChunkHandle(1)) is None
    assert decode_slot(b"", HANDLE) is None
    assert decode_slot(bytes(SLOT_BYTES), HANDLE) is None
    for position in range(len(encoded)):
        torn = bytearray(encoded)
        torn[position] ^= 1
        assert decode_slot(torn, HANDLE) is None
    for length in range(len(encoded)):
        assert decode_slot(encoded[:length], HANDLE) is None
