"""Writers that fall silent lose their files, and nobody else does."""

from minigfs.master.writers import GONE_WRITER_MS, WRITER_LEASE_MS, WriterLeases


def test_a_silent_writer_expires_and_a_renewed_one_does_not() -> None:
    leases = WriterLeases()
    leases.renew(1, 0)
    leases.renew(2, 0)
    assert leases.expired([1, 2], WRITER_LEASE_MS) == ()
    leases.renew(2, WRITER_LEASE_MS)
    assert leases.expired([1, 2], WRITER_LEASE_MS + 1) == (1,)


def test_a_file_not_met_before_gets_a_full_lease() -> None:
    leases = WriterLeases()
    assert leases.expired([7], 1_000_000) == ()
    assert leases.expired([7], 1_000_000 + WRITER_LEASE_MS) == ()
    assert leases.expired([7], 1_000_001 + WRITER_LEASE_MS) == (7,)


def test_files_no_longer_temporary_are_forgotten() -> None:
    leases = WriterLeases()
    leases.renew(1, 0)
    assert leases.expired([], 10) == ()
    assert leases.expired([1], WRITER_LEASE_MS + 1) == (), "met anew"


def held(*file_ids: int) -> WriterLeases:
    """The files of one process, which keeps a call waiting."""
    leases = WriterLeases()
    for file_id in file_ids:
        leases.renew(file_id, 0, "p")
    leases.hold("p")
    return leases


def test_a_process_whose_connection_ended_loses_its_files_in_seconds_and_no_other_does() -> None:
    leases = held(1, 2)
    leases.renew(3, 0, "another")
    leases.renew(4, 0)
    leases.let_go("p", 1_000, cut_off=True)
    assert leases.expired([1, 2, 3, 4], 1_000 + GONE_WRITER_MS) == ()
    assert leases.expired([1, 2, 3, 4], 1_001 + GONE_WRITER_MS) == (1, 2)


def test_a_process_that_is_paused_keeps_its_files_as_long_as_ever() -> None:
    """Its call waits, or was answered and it does not ask again; its connection is there."""
    leases = held(1)
    assert leases.expired([1], WRITER_LEASE_MS) == ()
    leases.let_go("p", 30_000, cut_off=False)
    assert leases.expired([1], WRITER_LEASE_MS) == ()
    assert leases.expired([1], WRITER_LEASE_MS + 1) == (1,)


def test_a_process_that_is_back_keeps_its_files() -> None:
    """With another call that waits, or with any request for the file itself."""
    leases = held(1)
    leases.let_go("p", 1_000, cut_off=True)
    leases.hold("p")
    assert leases.expired([1], 10_000) == ()
    leases.let_go("p", 10_000, cut_off=True)
    leases.renew(1, 14_000)
    assert leases.expired([1], 14_000 + GONE_WRITER_MS) == ()
    assert leases.expired([1], 14_001 + GONE_WRITER_MS) == (1,)


def test_one_call_of_two_that_is_cut_off_means_nothing() -> None:
    leases = held(1)
    leases.hold("p")
    leases.let_go("p", 1_000, cut_off=True)
    assert leases.expired([1], 20_000) == ()
