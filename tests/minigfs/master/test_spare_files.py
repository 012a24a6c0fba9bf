"""Files made ahead: few log entries for many writers, none given twice, none left behind."""

import asyncio

import pytest

from minigfs.ids import ChunkHandle, FileId
from minigfs.master import commands
from minigfs.master.messages import SPARE_USE_MS, PrepareWrite, PublishFile, SealedChunk
from minigfs.master.spare_files import (
    BATCH_COUNT_MAX,
    FAST_MS,
    FIRST_BATCH_COUNT,
    UNWANTED_MS,
    SpareFile,
    SpareFiles,
)
from minigfs.master.tree_messages import SetPolicy
from tests.minigfs.master.harness import SERVERS, Driver
from tests.minigfs.master.test_membership import beat
from tests.minigfs.master.test_service import standing


def any_file(_: SpareFile) -> bool:
    return True


class Shelf:
    """Spares of one goal, whose orders are carried out at once."""

    def __init__(self) -> None:
        self.spares = SpareFiles()
        self.orders: list[int] = []
        self._next = 1

    def take(self, now_ms: int, is_usable=any_file) -> SpareFile | None:
        file = self.spares.take(3, now_ms, is_usable)
        count = self.spares.to_make(3, now_ms)
        if count:
            ids = range(self._next, self._next + count)
            self._next += count
            files = [SpareFile(FileId(i), ChunkHandle(i), now_ms) for i in ids]
            self.spares.made(3, files)
            self.orders.append(count)
        return file


def test_files_taken_fast_are_made_many_at_once_and_given_once_each() -> None:
    shelf = Shelf()
    taken = [shelf.take(now_ms) for now_ms in range(1000)]
    given = [file.file_id for file in taken if file is not None]
    assert len(given) == len(set(given)) == 999  # the first writer found none
    assert shelf.orders[0] == FIRST_BATCH_COUNT
    assert shelf.orders[-1] == BATCH_COUNT_MAX
    assert len(shelf.orders) < 1000 * 3 / BATCH_COUNT_MAX


def test_files_taken_slowly_are_made_few_at_once() -> None:
    shelf = Shelf()
    for number in range(20):
        shelf.take(number * FAST_MS)
    assert set(shelf.orders) == {FIRST_BATCH_COUNT}


def test_nothing_is_made_twice_while_an_order_is_under_way_and_a_failed_one_is_made_again() -> None:
    spares = SpareFiles()
    assert spares.take(3, 0, any_file) is None
    assert spares.to_make(3, 0) == FIRST_BATCH_COUNT
    assert spares.to_make(3, 1) == 0
    spares.made(3, [])
    assert spares.to_make(3, 2) > 0


def test_what_nobody_asks_for_is_given_up_and_what_is_old_is_not_given_out() -> None:
    shelf = Shelf()
    shelf.take(0)
    assert shelf.spares.unwanted(UNWANTED_MS - 1) == ()
    assert len(shelf.spares.unwanted(UNWANTED_MS)) == FIRST_BATCH_COUNT
    assert shelf.spares.unwanted(10 * UNWANTED_MS) == ()

    late = SPARE_USE_MS + 1
    shelf.take(0)
    assert shelf.take(late) is None
    assert len(shelf.spares.unwanted(late)) == FIRST_BATCH_COUNT


def test_a_file_whose_servers_will_not_do_now_is_passed_over() -> None:
    shelf = Shelf()
    shelf.take(0)
    file = shelf.take(1, lambda file: file.file_id == 3)
    assert file is not None
    assert file.file_id == 3


def test_a_spare_becomes_a_file_anywhere_with_the_time_of_its_publication() -> None:
    driver = Driver()
    reply = driver.apply(commands.CreateSpareFiles(6, 3, (SERVERS, SERVERS)))
    assert isinstance(reply, commands.SpareFilesCreated)
    (first, handle), (second, _) = reply.files
    published = driver.apply(driver.publish_command(first, "/a/b", 10))
    assert isinstance(published, commands.FilePublished)
    assert published.created_ms == published.modified_ms == 8
    assert driver.state.chunks[handle].length_bytes == 10
    driver.apply(commands.DiscardFiles(9, (second,)))
    assert len(driver.state.temporary) == 0
    assert driver.refused(commands.CreateSpareFiles(9, 0, (SERVERS,))) == "usage"


def test_the_second_small_file_of_a_writer_needs_one_change() -> None:
    async def main() -> None:
        async with standing() as stand:
            for name in ("s0", "s1"):
                await stand.call(beat(name, full=True))
            assert (await stand.call(PrepareWrite(path="/f", holder="h"))).spare is None
            await stand.host.until(lambda: len(stand.state.temporary) > 0, timeout_ms=5_000)
            await asyncio.sleep(0)  # whoever ordered them hears of it
            terms = await stand.call(PrepareWrite(path="/g", holder="h"))
            (chunk,) = terms.spare.chunks
            before = stand.host.commit_index
            servers = tuple(replica.chunkserver_id for replica in chunk.replicas)
            sealed = SealedChunk(handle=chunk.handle, length_bytes=5, digest=7, replicas=servers)
            publish = PublishFile(file_id=terms.spare.file_id, path="/g", chunks=(sealed,))
            status = await stand.call(publish)
            assert (status.path, status.size_bytes) == ("/g", 5)
            assert stand.host.commit_index == before + 1
            assert (await stand.call(PrepareWrite(path="/g"))).spare is None  # nobody to keep it

    asyncio.run(main())


@pytest.mark.parametrize("trouble", ["a policy asks for more", "a server is dead"])
def test_no_spare_is_given_that_a_new_file_would_not_be_like(trouble: str) -> None:
    async def main() -> None:
        async with standing() as stand:
            for name in ("s0", "s1", "s2"):
                await stand.call(beat(name, full=True))
            await stand.call(PrepareWrite(path="/f", holder="h"))
            await stand.host.until(lambda: len(stand.state.temporary) > 0, timeout_ms=5_000)
            await asyncio.sleep(0)
            if trouble == "a policy asks for more":
                await stand.call(SetPolicy(path="/", replication=3, retention_ms=None))
            else:
                stand.clock.advance(6_000)
                await stand.call(beat("s2"))
            terms = await stand.call(PrepareWrite(path="/g", holder="h"))
            assert terms.spare is None
            assert terms.replication == (3 if "policy" in trouble else 2)

    asyncio.run(main())
