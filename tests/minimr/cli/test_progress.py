"""Progress never goes backwards, whatever the coordinator reports."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimr.cli.progress import BarProgress, Estimate, LineProgress
from minimr.ids import JobId
from minimr.messages import JobState, JobStatus


def status(
    *, maps: int = 0, reduces: int = 0, read: int = 0, shuffled: int = 0, version: int = 0,
    state: JobState = JobState.RUNNING,
) -> JobStatus:  # fmt: skip
    return JobStatus(
        job_id=JobId("words-1"),
        name="words",
        state=state,
        version=version,
        output="file:///out",
        map_count=4,
        maps_done=maps,
        reduce_count=2,
        reduces_done=reduces,
        input_bytes=1000,
        input_bytes_done=read,
        shuffle_bytes=500,
        shuffle_bytes_done=shuffled,
        counters={},
        phase_ms={},
        submitted_ms=0,
        ended_ms=0,
    )


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 500)), min_size=1, max_size=30))
def test_the_fraction_only_grows_and_the_time_left_only_falls(
    reports: list[tuple[int, int]],
) -> None:
    estimate = Estimate()
    fractions, left = [], []
    for second, (read, shuffled) in enumerate(reports):
        estimate.update(status(read=read, shuffled=shuffled), second * 1000)
        fractions.append(estimate.fraction)
        if estimate.remaining_ms is not None:
            left.append(estimate.remaining_ms)
    assert fractions == sorted(fractions)
    assert left == sorted(left, reverse=True)
    assert all(0 <= fraction <= 1 for fraction in fractions)


def test_a_finished_job_is_whole_even_if_it_had_no_input() -> None:
    estimate = Estimate()
    estimate.update(status(state=JobState.DONE), 10)
    assert estimate.fraction == 1.0


def test_in_a_pipe_a_line_comes_with_each_phase_and_every_five_seconds() -> None:
    lines: list[str] = []
    clock = [0]
    view = LineProgress(lines.append, lambda: clock[0])
    for clock[0], report in [
        (0, status()),
        (1_000, status(maps=1, read=250)),
        (6_000, status(maps=2, read=500)),
        (7_000, status(maps=4, read=1000)),
        (7_500, status(maps=4, reduces=1, read=1000, shuffled=250)),
        (8_000, status(maps=4, reduces=2, read=1000, shuffled=500, state=JobState.PUBLISHING)),
        (8_100, status(maps=4, reduces=2, read=1000, shuffled=500, state=JobState.DONE)),
    ]:
        view.show(report)
    assert [line.split(":")[0] for line in lines] == ["map", "map", "reduce", "publish"]
    assert all(line.endswith("\n") and "\x1b" not in line for line in lines)
    assert "2/4" in lines[1]


def test_bars_take_any_status_and_close_cleanly() -> None:
    with BarProgress() as view:
        view.show(status())
        view.show(status(maps=3, read=800))
        view.show(status(maps=2, read=500))  # a worker died
        view.show(status(maps=4, reduces=2, read=1000, shuffled=500, state=JobState.DONE))


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
def test_a_narrow_terminal_cuts_nothing_that_matters(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    with BarProgress() as view:
        shown = status(maps=2, read=500 << 20, reduces=1, shuffled=100 << 20)
        sizes = {"input_bytes": 1000 << 20, "shuffle_bytes": 500 << 20}
        view.show(msgspec.structs.replace(shown, **sizes))
    lines = capsys.readouterr().err.splitlines()
    for name, share in (("maps", "50%"), ("shuffle", "20%"), ("reduces", "50%")):
        assert any(name in line and share in line for line in lines), lines
    assert any("2/4" in line for line in lines)
    assert any("left" in line for line in lines) or columns < 60
    assert any("of 1000.0 MiB" in line for line in lines) or columns < 80
