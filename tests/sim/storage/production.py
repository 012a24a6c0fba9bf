"""Runs production modules on a world's fibers, clock, network and chance.

The modules of chunkservers, clients, masters and the transport are the very ones that run in
production. For as long as a world runs, the names by which they reach the machine (``threading``,
``time``, ``SystemClock``, ``RealNetwork`` and so on) lead to the world's own.
"""

import importlib
import os
import pkgutil
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from tests.sim.clock import SimRng
from tests.sim.storage.fibers import Fibers
from tests.sim.storage.threads import thread_modules

__all__ = ["EPOCH_MS", "SimSystemClock", "on_fibers"]

EPOCH_MS = 1_700_000_000_000
_PACKAGES = ("chunkserver", "client", "master", "transport")
_LEFT_OUT = ("process", "metrics_http", "interpreter", "event_loop", "sockets")


class SimSystemClock:
    """A ``Clock`` of virtual time."""

    def __init__(self, fibers: Fibers) -> None:
        self._scheduler = fibers.scheduler

    def now_ms(self) -> int:
        return EPOCH_MS + self._scheduler.now_us // 1000

    def monotonic_ms(self) -> int:
        return self._scheduler.now_us // 1000


@contextmanager
def on_fibers(fibers: Fibers, seed: str, more: Mapping[str, Any]) -> Iterator[None]:
    """In the block, production modules run on ``fibers``; ``more`` is what else they find."""
    chance = random.Random(seed)
    clock = SimSystemClock(fibers)

    def network() -> object:
        assert fibers.life is not None
        return fibers.life.network

    def process_id() -> int:
        assert fibers.life is not None
        return fibers.life.process_id

    replaced: Mapping[str, Any] = {
        **thread_modules(fibers),
        **more,
        "SystemClock": lambda: clock,
        "SystemRng": lambda: SimRng(chance.getrandbits(64)),
        "RealNetwork": network,
        "secrets": SimpleNamespace(token_bytes=chance.randbytes, token_hex=_hex_of(chance)),
        "atexit": SimpleNamespace(register=lambda *_: None),
        "os": SimpleNamespace(**{**vars(os), "urandom": chance.randbytes, "getpid": process_id}),
    }
    before: list[tuple[Any, str, Any]] = []
    for module in _modules():
        for name, value in replaced.items():
            if name in vars(module):
                before.append((module, name, getattr(module, name)))
                setattr(module, name, value)
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


def _hex_of(chance: random.Random) -> Any:
    return lambda count: chance.randbytes(count).hex()


def _modules() -> list[Any]:
    names = [
        found.name
        for package in _PACKAGES
        for found in pkgutil.iter_modules(
            importlib.import_module(f"minigfs.{package}").__path__, f"minigfs.{package}."
        )
        if found.name.rpartition(".")[2] not in _LEFT_OUT
    ]
    names.append("minigfs.chunkserver.process")
    return [importlib.import_module(name) for name in names]
