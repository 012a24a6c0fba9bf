"""What the master hears adds up to what is here, whatever is lost on the way."""

import copy
from collections.abc import Iterator

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from minigfs.chunkserver import reports
from minigfs.chunkserver.chunk_file import StoredChunk
from minigfs.chunkserver.reports import ReportLedger
from minigfs.ids import ChunkHandle, ChunkVersion


@pytest.fixture(scope="module", autouse=True)
def _small_parts() -> Iterator[None]:
    kept = reports._CHUNKS_PER_REPORT_MAX
    reports._CHUNKS_PER_REPORT_MAX = 2
    yield
    reports._CHUNKS_PER_REPORT_MAX = kept


def chunk(handle: int) -> StoredChunk:
    return StoredChunk(handle=ChunkHandle(handle), version=ChunkVersion(1), length_bytes=handle)


def test_the_first_report_is_full_and_the_next_only_news() -> None:
    ledger = ReportLedger()
    ledger.sealed(chunk(1))
    first = ledger.take([chunk(1)])
    assert (first.full, first.chunks) == (True, (chunk(1),))
    ledger.delivered(first)
    ledger.sealed(chunk(2))
    second = ledger.take([chunk(1), chunk(2)])
    assert (second.full, second.chunks, second.gone) == (False, (chunk(2),), ())


def test_a_lost_report_is_said_again() -> None:
    ledger = ReportLedger()
    ledger.delivered(ledger.take([]))
    ledger.sealed(chunk(1))
    ledger.lost(ChunkHandle(5))
    lost = ledger.take([chunk(1)])
    assert ledger.take([chunk(1)]) == lost
    ledger.delivered(lost)
    empty = ledger.take([chunk(1)])
    assert (empty.chunks, empty.gone) == ((), ())


def test_what_only_a_master_of_yesterday_has_heard_is_said_again() -> None:
    # It answers for a while after the next one was told everything, and is believed until then.
    ledger = ReportLedger()
    true, stale = (2, 22), (1, 11)
    ledger.delivered(ledger.take([]))
    ledger.heard_by(true)
    assert not ledger.take([]).full
    ledger.sealed(chunk(1))
    ledger.delivered(ledger.take([chunk(1)]))
    ledger.heard_by(stale)
    for listener in (true, true):
        report = ledger.take([chunk(1)])
        assert (report.full, report.chunks) == (True, (chunk(1),))
        ledger.delivered(report)
        ledger.heard_by(listener)
    ledger.delivered(ledger.take([chunk(1)]))
    ledger.heard_by(true)
    assert not ledger.take([chunk(1)]).full


def test_what_happens_while_a_full_report_is_under_way_is_not_lost() -> None:
    ledger = ReportLedger()
    under_way = ledger.take([chunk(1)])
    ledger.sealed(chunk(2))
    ledger.lost(ChunkHandle(1))
    ledger.delivered(under_way)
    after = ledger.take([chunk(2)])
    assert (after.chunks, after.gone) == ((chunk(2),), (ChunkHandle(1),))


def test_a_full_report_comes_in_parts_each_until_it_is_delivered() -> None:
    ledger = ReportLedger()
    chunks = [chunk(handle) for handle in range(1, 6)]
    said = []
    for part in range(3):
        report = ledger.take(chunks)
        assert ledger.take([]) == report
        assert (report.full, report.report, report.part, report.more) == (True, 1, part, part < 2)
        ledger.delivered(report)
        ledger.delivered(report)
        said += report.chunks
    assert said == chunks
    assert not ledger.take(chunks).full


def test_a_full_report_asked_for_anew_starts_over() -> None:
    ledger = ReportLedger()
    chunks = [chunk(handle) for handle in range(1, 6)]
    ledger.delivered(ledger.take(chunks))
    late = ledger.take(chunks)
    ledger.owe_full_report()
    again = ledger.take(chunks)
    ledger.delivered(late)
    assert (again.report, again.part, again.chunks) == (2, 0, (chunk(1), chunk(2)))
    assert ledger.take(chunks) == again


class MasterKnowsWhatIsHere(RuleBasedStateMachine):
    """The ledger against a master that applies reports, some of which never arrive."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = ReportLedger()
        self.here: set[int] = set()
        self.known: set[int] = set()
        self.next_handle = 1

    @rule()
    def seal(self) -> None:
        self.here.add(self.next_handle)
        self.ledger.sealed(chunk(self.next_handle))
        self.next_handle += 1

    @rule()
    def delete(self) -> None:
        if self.here:
            handle = min(self.here)
            self.here.remove(handle)
            self.ledger.lost(ChunkHandle(handle))

    @rule(arrives=st.booleans(), meanwhile=st.sampled_from(["nothing", "seal", "delete"]))
    def heartbeat(self, arrives: bool, meanwhile: str) -> None:
        report = self.ledger.take([chunk(handle) for handle in sorted(self.here)])
        if meanwhile == "seal":
            self.seal()
        if meanwhile == "delete":
            self.delete()
        if arrives:
            if report.full and report.part == 0:
                self.known = set()
            self.known |= {reported.handle for reported in report.chunks}
            self.known -= set(report.gone)
            self.ledger.delivered(report)

    @rule()
    def master_restarts(self) -> None:
        self.known = set()
        self.ledger.owe_full_report()

    @invariant()
    def more_reports_bring_the_master_up_to_date(self) -> None:
        ledger, known = copy.deepcopy(self.ledger), set(self.known)
        report = None
        while report is None or report.full or report.chunks or report.gone:
            report = ledger.take([chunk(handle) for handle in sorted(self.here)])
            assert len(report.chunks) <= 2
            known = set() if report.full and report.part == 0 else known
            known |= {reported.handle for reported in report.chunks}
            known -= set(report.gone)
            ledger.delivered(report)
        assert known == self.here


TestMasterKnowsWhatIsHere = MasterKnowsWhatIsHere.TestCase
