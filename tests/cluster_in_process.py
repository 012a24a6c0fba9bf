"""A whole cluster in one process: real sockets, disks of memory, and next to no start-up."""

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

__all__ = ["CHUNK_BYTES", "with_cluster"]

SECURITY = Security(b"t", "c")
CHUNK_BYTES = 64 * 1024


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
