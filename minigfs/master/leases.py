"""What an open chunk is sealed with, decided from what its members say (DESIGN 6.5).

A record is acknowledged once every member has it durably, and a frozen member takes no more. So as
soon as one member is frozen nothing can be acknowledged any more, and the state of every frozen
member contains all that ever was. States are prefixes of each other, since one primary ordered
them. It follows that any frozen state would do; the choice is about copies and about bad disks:

- a member whose state is shorter than what another knows to be on all members has lost something,
  and does not count; nor does one whose disk lets it doubt that it has all it had (a crash in the
  middle of a write looks like a flipped bit), unless no other is to be had: then it takes two of
  them, or all members there are, and the longest is kept;
- the longest state that two members have is kept: nobody's disk alone decides, and no byte has to
  be copied, since members that have more cut what was never acknowledged;
- no choice is made on fewer members than ``min(2, members, members that live and may have it)``.

No clock is part of this: a member that is slow, or comes back, finds the chunk sealed and can
complete nothing. Pure.
"""

from collections.abc import Mapping

from minigfs.ids import ChunkserverId
from minigfs.master.append_messages import FrozenReplica

__all__ = ["agreeing", "deciding", "enough_answers", "length_to_keep"]

_COPIES_MIN = 2


def enough_answers(
    member_count: int, answers: Mapping[ChunkserverId, FrozenReplica], live_count: int
) -> bool:
    """Whether the members that answered may decide; ``live_count`` of all count as alive."""
    sure_count = sum(answer.is_here and not answer.is_doubtful for answer in answers.values())
    if not sure_count:
        # Members that never heard of the chunk acknowledged nothing; but all of them must say so.
        holder_count = sum(answer.is_here for answer in answers.values())
        are_two = holder_count >= _COPIES_MIN and len(answers) >= live_count
        return len(answers) == member_count or are_two
    others_count = len(answers) - sure_count
    return sure_count >= min(_COPIES_MIN, member_count, max(live_count - others_count, 1))


def deciding(
    answers: Mapping[ChunkserverId, FrozenReplica],
) -> dict[ChunkserverId, FrozenReplica]:
    """The answers that count: of members that are sure of what they have, if there is any."""
    holders = {member: answer for member, answer in answers.items() if answer.is_here}
    sure = {member: answer for member, answer in holders.items() if not answer.is_doubtful}
    return sure or holders


def length_to_keep(answers: Mapping[ChunkserverId, FrozenReplica]) -> int:
    """How many bytes of the chunk stay; 0 if no member has any."""
    holders = deciding(answers).values()
    copies = 1 if any(holder.is_doubtful for holder in holders) else _COPIES_MIN
    committed = max((holder.committed_bytes for holder in holders), default=0)
    lengths = sorted(
        (holder.length_bytes for holder in holders if holder.length_bytes >= committed),
        reverse=True,
    )
    return lengths[min(copies, len(lengths)) - 1] if lengths else 0


def agreeing(
    members: tuple[ChunkserverId, ...], digests: Mapping[ChunkserverId, int]
) -> tuple[tuple[ChunkserverId, ...], int]:
    """The members, in order, with the digest that most of those asked have, and that digest.

    A tie goes to the digest of the member that comes first.
    """
    present = [member for member in members if member in digests]
    assert present
    counts = [digests[member] for member in present]
    digest = max(counts, key=counts.count)
    return tuple(member for member in present if digests[member] == digest), digest
