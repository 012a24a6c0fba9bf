"""Whole transcripts, message for message; ``--rewrite-traces`` writes them anew."""

from pathlib import Path

import pytest

from tests.minigfs.raft.transcript import play

SCRIPTS = sorted((Path(__file__).parent / "testdata").glob("*.txt"))


def test_there_are_scripts() -> None:
    assert len(SCRIPTS) >= 8


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_the_transcript_is_as_recorded(script: Path, rewrite_traces: bool) -> None:
    recorded = script.read_text()
    played = play(recorded)
    if rewrite_traces:
        script.write_text(played)
        return
    assert played == recorded
