"""Which history of the file system this is: how chunkservers tell an old master from theirs.

A master started from an old copy of its directory knows fewer chunks than there are, and would have
newer ones deleted as unknown. Its terms and indexes are no help: it elects itself in a term that
the true masters may have used as well, and its log grows. So each term of leadership begins with
an entry that holds a number drawn at random, and the state keeps all of them::

    (term 1, from index 2, 0x9c1e...)  (term 4, from index 310, 0x07d3...)  ...

A chunkserver remembers the newest position that it was told by a master it believed: term, that
term's number, and an index of the log. A master's history contains the position if it has the
term's entry with that number, and the index lies within the term and is committed. Two logs that
share an entry share all before it, so such a master knows of all that the chunkserver was ever
told to do; any other's orders are ignored. DESIGN 6.7 asked for this of (term, index); the number
also tells two histories apart that grew from one copy and reached the same term and index. Pure.
"""

from collections.abc import Sequence

import msgspec

from minigfs.master.heartbeat_messages import HistoryPosition

__all__ = ["TenureMark", "contains", "newest_position"]


class TenureMark(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The beginning of a term of leadership."""

    term: int
    first_index: int  # every position told in an earlier term is below it
    nonce: int


def newest_position(marks: Sequence[TenureMark], commit_index: int) -> HistoryPosition | None:
    """What to tell a chunkserver that believes this master."""
    if not marks:
        return None
    newest = marks[-1]
    index = max(commit_index, newest.first_index)
    return HistoryPosition(term=newest.term, index=index, nonce=newest.nonce)


def contains(marks: Sequence[TenureMark], position: HistoryPosition, commit_index: int) -> bool:
    """Whether the history with these marks, committed up to there, went through a position."""
    for place in reversed(range(len(marks))):
        mark = marks[place]
        if (mark.term, mark.nonce) == (position.term, position.nonce):
            is_last = place + 1 == len(marks)
            last_index = commit_index if is_last else marks[place + 1].first_index - 1
            return mark.first_index <= position.index <= max(last_index, mark.first_index)
    return False
