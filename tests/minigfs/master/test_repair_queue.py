"""What waits for repair: a million chunks of it must not stop the master for a moment."""

from collections.abc import Callable
from time import thread_time

from minigfs.ids import ChunkHandle
from minigfs.master.repair_queue import RepairQueue

CHUNKS = [ChunkHandle(number) for number in range(1, 750_001)]
LOOKS = 500


def longest_ms(do: Callable[[list[ChunkHandle]], object]) -> float:
    """Of what is done with 500 chunks after the other, in processor time."""
    longest_s = 0.0
    for start in range(0, len(CHUNKS), LOOKS):
        part = CHUNKS[start : start + LOOKS]
        began_s = thread_time()
        do(part)
        longest_s = max(longest_s, thread_time() - began_s)
    return longest_s * 1e3


def test_no_step_takes_long_while_most_of_a_large_cluster_is_unreadable() -> None:
    queue = RepairQueue()

    def find_unreadable(part: list[ChunkHandle]) -> None:
        for handle in part:
            queue.put(handle, 1)

    def nobody_can_take_it(part: list[ChunkHandle]) -> None:
        for handle in queue.first(len(part)):
            queue.put_stuck(handle)

    def look_again(part: list[ChunkHandle]) -> None:
        for handle in queue.draw(len(part), 0):
            queue.forget(handle)

    longest = {"put": longest_ms(find_unreadable), "stuck": longest_ms(nobody_can_take_it)}
    assert queue.waiting_count == len(CHUNKS)
    began_s = thread_time()
    queue.look_at_stuck()
    longest["look"] = (thread_time() - began_s) * 1e3
    longest["forget"] = longest_ms(look_again)
    assert queue.waiting_count == 0
    assert max(longest.values()) < 20, longest


def test_a_few_chunks_do_not_wait_behind_a_million() -> None:
    queue = RepairQueue()
    queue.look_at(CHUNKS)
    queue.draw(LOOKS, 0)
    urgent = ChunkHandle(1_000_000)
    queue.look_at((urgent,))
    assert urgent in queue.draw(LOOKS, 0)


def test_in_a_rank_who_comes_back_comes_after_all_who_wait() -> None:
    queue = RepairQueue()
    for number in range(3):
        queue.put(ChunkHandle(number), 1)
    assert queue.first(1) == [0]
    queue.look_later(ChunkHandle(0), 0)  # it was tried, and failed
    queue.put(ChunkHandle(0), 1)
    assert queue.first(3) == [1, 2, 0]


def test_what_a_client_waits_for_is_drawn_first_however_many_walks_are_under_way() -> None:
    queue = RepairQueue()
    for server in range(9):
        queue.look_at([ChunkHandle(server * 100_000 + number) for number in range(1_000)])
    queue.draw(LOOKS, 0)
    urgent = ChunkHandle(1_000_000)
    queue.look_first(urgent)
    assert queue.draw(LOOKS, 0)[0] == urgent
