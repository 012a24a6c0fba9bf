"""Appending through a whole cluster in one process: real sockets, disks of memory, no start-up."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from minigfs.chunkserver.process import Chunkserver, ChunkserverOptions
from minigfs.client.client import MinigfsClient
from minigfs.client.config import ClientConfig
from minigfs.config import FileSystemConfig
from minigfs.master.heartbeat_messages import Heartbeat
from minigfs.master.options import MasterOptions
from minigfs.master.service import FileSystemService
from minigfs.ports import SystemClock, SystemRng
from minigfs.transport.control_server import ControlServer
from minigfs.transport.messages import Message
from minigfs.transport.security import Security
from tests.lone_host import LONE_ADDRESS, lone_host
from tests.sim.disk import SimDisk

SECURITY = Security(b"t", "c")
CHUNK_BYTES = 64 * 1024
RECORD = b"r" * 5_000


def with_cluster(tmp_path: Path, use: Callable[[MinigfsClient, list[Chunkserver]], None]) -> None:
    """Run ``use`` in a thread beside a master and three chunkservers."""

    async def main() -> None:
        config = FileSystemConfig(cluster_id="c", chunk_bytes=CHUNK_BYTES, replication=3)
        options = MasterOptions(
            directory=Path("/data"), listen="127.0.0.1:0", security=SECURITY, config=config
        )
        service = FileSystemService(config, options, SystemClock(), SystemRng())
        host = lone_host(SimDisk(64 << 20), service.machines)
        await host.start(LONE_ADDRESS)
        await service.attach(host)
        await service.lead(host.term)
        heard = asyncio.Semaphore(0)
        handlers = dict(service.handlers())
        take = handlers[Heartbeat]

        async def hear(beat: Heartbeat) -> Message:
            heard.release()
            return await take(beat)

        server = ControlServer({**handlers, Heartbeat: hear}, SECURITY)
        address = await server.start("127.0.0.1:0")
        chunkservers: list[Chunkserver] = []
        try:
            for number in range(3):
                directory = tmp_path / str(number)
                directory.mkdir()
                chunkserver = Chunkserver(
                    ChunkserverOptions(
                        directory=directory,
                        listen="127.0.0.1:0",
                        masters=(address,),
                        security=SECURITY,
                    ),
                    disk=SimDisk(),
                )
                chunkserver.start()
                chunkservers.append(chunkserver)
            for _ in range(3):
                await heard.acquire()
            client = MinigfsClient(
                ClientConfig(masters=(address,), token=SECURITY.token, cluster_id="c")
            )
            await asyncio.to_thread(use, client, chunkservers)
        finally:
            for chunkserver in chunkservers:
                chunkserver.stop()
            await server.stop()
            await service.stop()
            await host.stop()

    asyncio.run(main())


def test_records_are_there_once_and_in_order_whichever_member_dies(tmp_path: Path) -> None:
    def use(client: MinigfsClient, chunkservers: list[Chunkserver]) -> None:
        records = [bytes([number]) * 5_000 for number in range(40)]  # three chunks and more
        with client.open_appender("/log") as appender:
            offsets = [appender.append(record) for record in records[:20]]
            chunkservers.pop(0).stop()
            offsets += [appender.append(record) for record in records[20:]]
        assert offsets == [number * 5_000 for number in range(40)]
        with client.open_reader("/log") as reader:
            assert reader.read_at(0, reader.size_bytes) == b"".join(records)
        assert not client.stat("/log").is_open

    with_cluster(tmp_path, use)


def test_several_appenders_share_a_file(tmp_path: Path) -> None:
    def use(client: MinigfsClient, _chunkservers: list[Chunkserver]) -> None:
        with client.open_appender("/log") as one, client.open_appender("/log") as other:
            offsets = [appender.append(RECORD) for _ in range(10) for appender in (one, other)]
        assert sorted(offsets) == [number * len(RECORD) for number in range(20)]
        assert client.stat("/log").size_bytes == 20 * len(RECORD)

    with_cluster(tmp_path, use)
