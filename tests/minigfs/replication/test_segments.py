"""Damage to a log is found and named; it is never taken for a crash, and never repaired away."""

import pytest

from minigfs.errors import CorruptLog
from minigfs.ports import RealDisk
from minigfs.raft import HardState, NodeId
from minigfs.replication.durable_log import DurableLog, LogSettings
from minigfs.replication.log_records import SAVE, encode_persist
from minigfs.replication.segments import segment_name, segment_sequences
from minigfs.replication.wal_format import Record, encode_record, record_bytes
from tests.minigfs.replication.log_histories import (
    FOUNDING,
    SMALL,
    Expected,
    History,
    entry,
    found,
    persist,
    reopen,
    write_snapshot,
)
from tests.sim.disk import SimDisk

WAL = "raft/wal"
SEAL_BYTES = record_bytes(0)


def path_of(sequence: int) -> str:
    return f"{WAL}/{segment_name(sequence)}"


def content_of(disk, path: str) -> bytes:
    with disk.open(path) as file:
        return file.read_at(0, file.size_bytes())


def put(disk, path: str, content: bytes) -> None:
    with disk.open(path, create=True) as file:
        file.truncate(0)
        file.write_at(0, content)
        file.sync()


def files_of(disk) -> dict[str, bytes]:
    paths = [
        f"raft/{sub}/{name}" for sub in ("wal", "snapshots") for name in disk.list(f"raft/{sub}")
    ]
    return {path: content_of(disk, path) for path in paths if "spare" not in path}


def long_log(member: str = "a", entries: int = 40) -> tuple[SimDisk, Expected]:
    """A log of several segments; everything in it was acknowledged."""
    disk, expected = SimDisk(), Expected()
    log = DurableLog.create(
        disk, "raft", member_id=NodeId(member), configuration=FOUNDING, settings=SMALL
    )
    for index in range(1, entries + 1):
        unit = persist(
            entry(index, 1, b"%d" % index * 30), hard_state=HardState(current_term=1 + index // 10)
        )
        log.save(unit)
        expected.save(unit)
    log.close()
    return disk, expected


def refusal(disk) -> str | None:
    try:
        reopen(disk).close()
    except CorruptLog as error:
        return str(error)
    return None


def assert_refused_and_untouched(disk, *words: str) -> None:
    before = files_of(disk)
    with pytest.raises(CorruptLog) as caught:
        reopen(disk)
    for word in (*words, "remove this member"):
        assert word in str(caught.value)
    assert files_of(disk) == before


def test_one_log_goes_over_many_segments_of_the_size_that_was_asked_for() -> None:
    disk, expected = long_log()
    sequences = segment_sequences(disk, WAL)
    assert len(sequences) > 4
    assert {disk.size_bytes(path_of(sequence)) for sequence in sequences} == {1024}
    assert expected.differs(reopen(disk)) is None


def test_an_append_larger_than_a_segment_has_a_segment_of_its_own() -> None:
    disk = SimDisk()
    log = found(disk)
    log.save(persist(entry(1), entry(2, 1, b"x" * 10_000), entry(3)))
    log.save(persist(entry(4)))
    again = reopen(disk)
    assert [len(one.data) for one in again.entries(1, 4, 1 << 20)] == [7, 10_000, 7, 7]


def test_a_save_of_more_than_one_record_can_hold_reads_back(tmp_path) -> None:
    settings = LogSettings(segment_bytes=1024 * 1024)
    log = found(RealDisk(tmp_path), settings)
    entries = [entry(index, 1, bytes([index]) * 3_000_000) for index in range(1, 5)]
    log.save(persist(*entries))
    log.close()
    again = reopen(RealDisk(tmp_path), settings)
    assert list(again.entries(1, 4, 1 << 30)) == entries
    again.close()


def test_a_flipped_bit_anywhere_is_refused_by_name_or_loses_nothing() -> None:
    disk, expected = long_log(entries=25)
    refused = due = 0
    for sequence in segment_sequences(disk, WAL):
        path = path_of(sequence)
        whole = content_of(disk, path)
        used = len(whole.rstrip(b"\0"))
        due += used - SEAL_BYTES
        for offset in range(len(whole)):
            if offset > used + 40 and offset % 50:
                continue
            content = bytearray(whole)
            content[offset] ^= 1 << (offset % 8)
            put(disk, path, bytes(content))
            message = refusal(disk)
            if message is None:
                assert expected.differs(reopen(disk)) is None
            else:
                assert path in message
                assert "offset" in message
                assert content_of(disk, path) == content
                refused += 1
            put(disk, path, whole)
    assert refused >= due  # the log is complete without a seal


def test_acknowledged_sectors_that_became_zeros_are_refused() -> None:
    settings = LogSettings(segment_bytes=4096)
    disk = SimDisk()
    log = found(disk, settings)
    for index in range(1, 60):
        log.save(persist(entry(index, 1, b"%d" % index * 50)))
    last_save = 200
    for sequence in segment_sequences(disk, WAL):
        path = path_of(sequence)
        whole = content_of(disk, path)
        is_last = sequence == segment_sequences(disk, WAL)[-1]
        used = len(whole.rstrip(b"\0")) - (last_save if is_last else 48)
        for start in range(0, used - 511, 512):
            put(disk, path, whole[:start] + bytes(512) + whole[start + 512 :])
            with pytest.raises(CorruptLog, match=path):
                reopen(disk, settings)
        put(disk, path, whole)
    assert reopen(disk, settings).last_index() == 59


@pytest.mark.parametrize("which", ["first", "middle", "last", "last two"])
def test_a_missing_segment_is_refused(which) -> None:
    disk, _ = long_log()
    last = segment_sequences(disk, WAL)[-1]
    missing = {"first": [1], "middle": [3], "last": [last], "last two": [last - 1, last]}[which]
    for sequence in missing:
        disk.remove(path_of(sequence))
    named = "are not in the log" if which == "first" else path_of(missing[0])
    assert_refused_and_untouched(disk, named)


def test_a_log_without_its_segments_is_refused_where_a_snapshot_shows_that_there_was_one() -> None:
    disk, history = SimDisk(), History(2)
    log = found(disk)
    while not log.snapshots.names():
        save, allowed = history.step(log)
        log.complete(save)
        history.expected = allowed[-1]
    for sequence in segment_sequences(disk, WAL):
        disk.remove(path_of(sequence))
    assert_refused_and_untouched(disk, "snapshot-")
    with pytest.raises(CorruptLog):
        found(disk)


def test_segments_that_changed_places_are_refused() -> None:
    disk, _ = long_log()
    two, three = content_of(disk, path_of(2)), content_of(disk, path_of(3))
    put(disk, path_of(2), three)
    put(disk, path_of(3), two)
    assert_refused_and_untouched(disk, path_of(2), "offset 0", "segment 3")


@pytest.mark.parametrize("sequence", [1, 2, 4])
def test_a_segment_of_another_members_log_is_refused(sequence) -> None:
    disk, _ = long_log()
    foreign, _ = long_log("other")
    put(disk, path_of(sequence), content_of(foreign, path_of(sequence)))
    assert_refused_and_untouched(disk, "belongs to member", "other")


def test_a_segment_brought_back_from_an_old_copy_is_refused() -> None:
    disk = SimDisk()
    log = found(disk)
    copy = b""
    for index in range(1, 30):
        log.save(persist(entry(index, 1, b"%d" % index * 30)))
        if not copy and log.last_index() == 3:
            copy = content_of(disk, path_of(1))
    put(disk, path_of(1), copy)
    assert_refused_and_untouched(disk, path_of(1), path_of(2), "offset")


def test_an_emptied_segment_is_refused() -> None:
    for content in (b"", bytes(1024), b"something else altogether" * 20):
        disk, _ = long_log()
        put(disk, path_of(3), content)
        assert_refused_and_untouched(disk, path_of(3), "offset 0")


def test_a_record_that_is_whole_but_of_no_known_kind_is_not_blamed_on_the_disk() -> None:
    for record in (Record(77, 0, b"from the future"), Record(SAVE, 1, b"\xc1")):
        disk = SimDisk()
        log = found(disk)
        log._segments.append([record], log._checkpoint)
        with pytest.raises(CorruptLog, match="newer"):
            reopen(disk)


def test_the_space_of_compacted_segments_is_freed_oldest_first() -> None:
    disk, _ = long_log()
    log = reopen(disk)
    before = segment_sequences(disk, WAL)
    metadata = History.metadata(30, 1)
    write_snapshot(log, metadata)
    log.complete(log.begin_keep(metadata))
    assert segment_sequences(disk, WAL)[: len(before)] == before
    log.complete(log.begin_compact(20))
    left = segment_sequences(disk, WAL)
    assert 1 < left[0] <= 20
    assert left == list(range(left[0], left[-1] + 1))
    again = reopen(disk)
    assert 1 < again.first_index() <= 21
    assert (again.last_index(), again.snapshot_metadata()) == (40, metadata)


def test_a_segment_that_a_crash_left_unsealed_is_sealed_by_the_next_start() -> None:
    disk, _ = long_log()
    last = segment_sequences(disk, WAL)[-1]
    before = path_of(last - 1)
    sealed = content_of(disk, before)
    end = len(sealed.rstrip(b"\0")) - SEAL_BYTES
    put(disk, before, sealed[: end + 7])  # the seal itself was torn
    reopen(disk).close()
    assert content_of(disk, before).rstrip(b"\0") == sealed.rstrip(b"\0")
    disk.remove(path_of(last))
    assert_refused_and_untouched(disk, path_of(last))


def test_what_opened_a_segment_was_synced_before_the_segment_had_its_name() -> None:
    disk, _ = long_log(entries=1)
    log = reopen(disk)
    while len(segment_sequences(disk, WAL)) == 1:
        log.save(persist(entry(log.last_index() + 1, 1, b"x" * 100)))
    path = path_of(2)
    content = content_of(disk, path)
    end = len(content.rstrip(b"\0"))
    for cut in range(end - 150, end):  # as a torn append would look in any other place
        put(disk, path, content[:cut] + bytes(len(content) - cut))
        assert_refused_and_untouched(disk, path, "offset")


def test_what_is_left_of_a_torn_append_never_meets_what_is_written_over_it() -> None:
    settings = LogSettings(segment_bytes=1 << 16)
    disk = SimDisk()
    log = found(disk, settings)
    path = path_of(1)
    start = log._segments._segments[-1].end
    one, two = encode_persist(persist(entry(1, 1, b"a" * 2000))), encode_persist(persist(entry(2)))
    log._segments.append([*one, *two], log._checkpoint)
    torn = bytearray(content_of(disk, path))
    torn[start + 600 : start + 1700] = bytes(1100)  # the second record was written, the first not
    put(disk, path, bytes(torn))
    log = reopen(disk, settings)
    assert log.last_index() == 0
    log.save(persist(entry(1, 1, b"b" * 2000)))
    disk.crash()
    assert reopen(disk, settings).last_index() == 1


def test_a_record_that_lost_one_bit_of_its_last_byte_still_does_not_look_cut_short() -> None:
    chain = 0
    for number in range(2000):
        data, chain = encode_record(Record(SAVE, number, b"payload"), 0, chain)
        assert all(data[-1] ^ (1 << bit) for bit in range(8))


def test_an_acknowledged_record_whose_sectors_became_zeros_is_refused_in_the_last_segment() -> None:
    """A cut append looks the same; but later records say that this one had been synced."""
    disk, settings = SimDisk(), LogSettings(segment_bytes=64 * 1024)
    log = found(disk, settings)
    for index in range(1, 40):
        log.save(persist(entry(index, 1, b"%d" % index * 50)))
    (sequence,) = segment_sequences(disk, WAL)
    whole = content_of(disk, path_of(sequence))
    for start in range(512, len(whole.rstrip(b"\0")) - 1024, 512):
        put(disk, path_of(sequence), whole[:start] + bytes(512) + whole[start + 512 :])
        with pytest.raises(CorruptLog, match=path_of(sequence)):
            reopen(disk, settings)
