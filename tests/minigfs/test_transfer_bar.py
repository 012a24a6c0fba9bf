"""A bar is shown to who waits at a terminal, and to nobody else."""

import io
import itertools
import sys

import pytest

from minigfs.cli.transfer_bar import TransferBar

BLOCKS = [b"x" * 1000, b"y" * 500]


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def copied(stderr: io.StringIO, *, quiet: bool = False, seconds_per_block: float = 2.0) -> str:
    """What a copy shows there."""
    clock = itertools.count(0.0, seconds_per_block)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", stderr)
        patch.setenv("TERM", "xterm-256color")
        with TransferBar(quiet=quiet, now_s=lambda: next(clock), width=100) as bar:
            assert list(bar.following(BLOCKS, "name [of] file", 1500)) == BLOCKS
    return stderr.getvalue()


def test_a_copy_that_takes_its_time_is_shown_with_its_name_and_size() -> None:
    shown = copied(Screen())
    assert "name [of] file" in shown
    assert "1.5 KiB" in shown


def test_what_is_done_at_once_shows_nothing() -> None:
    assert copied(Screen(), seconds_per_block=0.01) == ""


def test_the_quiet_see_nothing() -> None:
    assert copied(Screen(), quiet=True) == ""


def test_a_pipe_gets_nothing() -> None:
    assert copied(io.StringIO()) == ""
