"""What one seed's storage world is like; every seed draws its own."""

import dataclasses
import random
from collections.abc import Mapping
from dataclasses import dataclass

from tests.sim.scheduler import MS, SECOND

__all__ = ["FAULTS", "StorageOptions", "draw_storage_options", "with_storage_settings"]

FAULTS = (
    "kill",
    "power-loss",
    "crash-point",
    "crash-many",
    "pause",
    "slow-disk",
    "full-disk",
    "io-error",
    "bit-flip",
    "file-lost",
    "isolate",
    "cut-one-way",
    "reset",
    "new-leader",
    "stale-leader",
    "master-crash",
    "old-master",
    "client-crash",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageOptions:
    """Times in virtual microseconds."""

    storm_us: int
    servers: int = 4
    masters: int = 3
    clients: int = 2
    replication: int = 3
    chunk_bytes: int = 64 * 1024
    disk_bytes: int = 64 << 20
    containers: bool = False
    disk_us_max: int = 500
    delay_us_max: int = 1 * MS
    commit_us_max: int = 3 * MS
    record_bytes_max: int = 2_000
    file_chunks_max: int = 3
    think_us: int = 100 * MS
    timeout_ms: int = 10_000
    gap_us: int = 600 * MS
    kinds: tuple[str, ...] = FAULTS


def draw_storage_options(seed: int) -> StorageOptions:
    chance = random.Random(f"storage options {seed}")
    choose = chance.choice
    servers = choose((3, 4, 4, 5))
    return StorageOptions(
        storm_us=choose((15, 25)) * SECOND,
        servers=servers,
        clients=choose((2, 3)),
        replication=choose((2, 3, 3)),
        chunk_bytes=choose((8 * 1024, 64 * 1024, 100 * 1024)),
        disk_us_max=choose((200, 1_000, 5_000)),
        delay_us_max=choose((200, 2 * MS, 10 * MS)),
        commit_us_max=choose((1 * MS, 5 * MS, 30 * MS)),
        record_bytes_max=choose((100, 1_500)),
        file_chunks_max=choose((1, 3, 5)),
        think_us=choose((50 * MS, 200 * MS)),
        timeout_ms=choose((4_000, 10_000)),
        gap_us=choose((400 * MS, 800 * MS, 1600 * MS)),
        kinds=tuple(kind for kind in FAULTS if chance.random() < 0.5),
        containers=chance.random() < 0.5,
    )


def with_storage_settings(options: StorageOptions, settings: Mapping[str, str]) -> StorageOptions:
    """The options with some fields set from text."""
    changed: dict[str, object] = {}
    for name, text in settings.items():
        before = getattr(options, name, None)
        if before is None:
            raise ValueError(f"a storage world has no option {name}")
        if isinstance(before, bool):
            changed[name] = text.lower() in ("1", "true", "yes")
        elif isinstance(before, int):
            changed[name] = int(text)
        else:
            changed[name] = tuple(part for part in text.split(",") if part)
    return dataclasses.replace(options, **changed)  # type: ignore[arg-type]
