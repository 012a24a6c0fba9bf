"""Processes that end while they write: the connections on which they called tell of it."""

import asyncio
import gc
import weakref

import pytest

from minigfs.errors import MinigfsError, OutcomeUnknown
from minigfs.master.messages import CreateFile
from minigfs.master.writers import GONE_WRITER_MS, WRITER_LEASE_MS
from minigfs.transport.client import ConnectionPool
from minigfs.transport.control_server import ControlServer
from tests.minigfs.master.test_service import SECURITY, standing


def test_a_process_that_ends_right_after_it_opened_a_file_is_known_to_be_gone() -> None:
    """It had no time for ``HoldWriters``; another one that stays as silent has not ended."""

    async def main() -> None:
        async with standing() as stand:
            server = ControlServer(stand.service.handlers(), SECURITY)
            address = await server.start("127.0.0.1:0")
            pools = {holder: ConnectionPool(SECURITY) for holder in ("gone", "silent")}
            try:
                for holder, pool in pools.items():
                    request = CreateFile(path=f"/{holder}", holder=holder)
                    await asyncio.to_thread(pool.call, address, request)
                assert len(stand.state.temporary) == 2
                ends = [asyncio.create_task(one.ended.wait()) for one in server.connections]
                pools["gone"].close()
                await asyncio.wait(ends, timeout=10, return_when=asyncio.FIRST_COMPLETED)
                stand.clock.advance(GONE_WRITER_MS + 1)
                await stand.tick()
                assert len(stand.state.temporary) == 1
                stand.clock.advance(WRITER_LEASE_MS)
                await stand.tick()
                assert len(stand.state.temporary) == 0
            finally:
                for pool in pools.values():
                    pool.close()
                await server.stop()

    asyncio.run(main())


def test_a_process_that_ends_while_its_file_is_logged_is_known_to_be_gone() -> None:
    async def main() -> None:
        async with standing() as stand:
            server = ControlServer(stand.service.handlers(), SECURITY)
            address = await server.start("127.0.0.1:0")
            asked, go_on, propose = asyncio.Event(), asyncio.Event(), stand.host.propose

            async def propose_later(*command, **how):
                asked.set()
                await go_on.wait()
                return await propose(*command, **how)

            stand.host.propose = propose_later
            pool = ConnectionPool(SECURITY)
            try:
                request = CreateFile(path="/f", holder="gone")
                call = asyncio.create_task(asyncio.to_thread(pool.call, address, request))
                await asked.wait()
                (connection,) = server.connections
                connection.abort()
                await connection.ended.wait()
                with pytest.raises(MinigfsError):
                    await call
                go_on.set()
                assert await stand.host.until(lambda: stand.state.temporary, timeout_ms=10_000)
                stand.host.propose = propose
                await stand.tick()
                assert len(stand.state.temporary) == 1, "it may be back in a moment"
                stand.clock.advance(GONE_WRITER_MS + 1)
                await stand.tick()
                assert len(stand.state.temporary) == 0
            finally:
                pool.close()
                await server.stop()

    asyncio.run(main())


def test_a_file_that_cannot_be_logged_after_its_process_has_ended_is_no_fault() -> None:
    """asyncio complains of an error that nobody asks for."""

    async def main() -> None:
        complaints: list[dict[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, told: complaints.append(told))
        async with standing() as stand:
            asked, go_on = asyncio.Event(), asyncio.Event()

            async def fail_later(*_command, **_how):
                asked.set()
                await go_on.wait()
                raise OutcomeUnknown("lost")

            stand.host.propose, propose = fail_later, stand.host.propose
            call = asyncio.create_task(stand.call(CreateFile(path="/f", holder="gone")))
            await asked.wait()
            call.cancel()
            await asyncio.wait([call])
            go_on.set()
            await asyncio.wait(stand.service._creating)
            stand.host.propose = propose
            del call
            gc.collect()  # it complains when the task is gone
            assert complaints == []

    asyncio.run(main())


def test_connections_do_not_keep_what_a_former_leader_knew() -> None:
    """They last as long as their processes; a leader knows every replica, and may lead often."""

    async def main() -> None:
        async with standing() as stand:
            server = ControlServer(stand.service.handlers(), SECURITY)
            address = await server.start("127.0.0.1:0")
            pool = ConnectionPool(SECURITY)
            try:
                request = CreateFile(path="/f", holder="here")
                await asyncio.to_thread(pool.call, address, request)
                tenure = weakref.ref(stand.service._tenure)
                stand.service.follow()
                await asyncio.wait(stand.service._housekeeping)
                gc.collect()
                assert tenure() is None
                assert len(server.connections) == 1
            finally:
                pool.close()
                await server.stop()

    asyncio.run(main())
