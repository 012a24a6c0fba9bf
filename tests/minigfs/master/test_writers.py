"""Writers that fall silent lose their files, and nobody else does."""

from minigfs.master.writers import WRITER_LEASE_MS, WriterLeases


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
