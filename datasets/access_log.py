"""A web server's access log: seeded, any size, in the Combined Log Format.

URLs follow Zipf's law over 50,000 different ones, as those of real sites do; there are query
strings, methods and statuses in plausible shares, referers and user agents, and a few requests in
ten thousand are as broken as real ones: ``"-"``, an empty request, blanks too many, escaped binary
junk, a line without quotes.

The same seed gives the same bytes on every machine, and a bigger log begins with the smaller one.
Everything is drawn from a counter: line ``i`` is a function of (seed, ``i``), so nothing depends on
how much is written at once. Only integers are computed, because floating-point functions may
differ from machine to machine.

Each part of a line is taken from a pool of ready-made texts, a batch of lines at a time, and Arrow
joins the parts in one pass.

``python -m minimr.datasets.access_log --size 100MB --seed 1 --output access.log``
"""

import argparse
import gzip
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    Draws = npt.NDArray[np.uint64]

__all__ = ["URL_COUNT", "generate", "main", "write"]

URL_COUNT = 50_000

_LINES_PER_BATCH = 1 << 14  # 3 MB of text: little memory, and few calls per megabyte
_DRAWS_PER_LINE = 2
_POOL_SIZE = 1 << 13
_LINES_PER_SECOND = 40
_FIRST_SECOND = 1_719_792_000  # Monday, 1 July 2024, 00:00:00 UTC
_DIRTY_FROM = 65_536 - 32  # of a 16-bit draw: one line in two thousand is dirty

_GAMMA = 0x9E3779B97F4A7C15
_MASK_64 = (1 << 64) - 1

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_SECTIONS = (
    "news", "images", "products", "docs", "blog", "static", "api", "archive", "history", "users",
    "forum", "download", "events", "wiki", "shop", "media",
)  # fmt: skip
_WORDS = (
    "apollo", "shuttle", "moon", "orbit", "launch", "mission", "rocket", "station", "engine",
    "index", "about", "contact", "price", "guide", "manual", "report", "summary", "photo", "map",
    "team", "release", "update", "weather", "river", "mountain", "garden", "winter", "summer",
)  # fmt: skip
_SUFFIXES = (".html", ".html", ".html", ".gif", ".jpg", ".png", ".css", ".js", ".pdf", "/", "/", "")
_QUERIES = ("?q={w}", "?q={w}+{v}&page={n}", "?id={n}", "?lang=en&sort={w}", "?ref=%2F{w}%20{v}")
_METHODS = (("GET", 90), ("POST", 6), ("HEAD", 3), ("PUT", 1))
_PROTOCOLS = (('HTTP/1.1" ', 80), ('HTTP/1.0" ', 12), ('HTTP/2.0" ', 8))
_STATUSES = ((200, 850), (304, 60), (404, 40), (301, 20), (302, 12), (206, 8), (500, 6), (403, 4))
_DIRTY_REQUESTS = (
    b'"-" ',
    b'"" ',
    b'"GET" ',
    b'"GET  HTTP/1.1" ',
    b'"GET / index.html HTTP/1.0" ',
    b'"GET   /history/apollo/   HTTP/1.0" ',
    b'"GET /unfinished" ',
    b'"\\x16\\x03\\x01\\x02" ',
    b'"GET /caf\\xe9 HTTP/1.0" ',
    b'"GET /say\\"hello\\" HTTP/1.1" ',
    b"GET /unquoted ",
    b'" \t" ',
)
_AGENTS = (
    "Mozilla/5.0 (X11; Linux x86_64) Firefox/127.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) Chrome/126.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5) Mobile Safari/604.1",
    "curl/8.5.0",
    "Googlebot/2.1 (+http://crawler.test/bot.html)",
    "-",
)


def generate(size_bytes: int, seed: int) -> Iterator[bytes]:
    """Yield the log in pieces of about 3 MB.

    Only whole lines are written, so the log is at most one line shorter than ``size_bytes``.
    """
    pools = _build_pools(seed)
    left_bytes = size_bytes
    first_line = 0
    while left_bytes > 0:
        piece = _batch(pools, seed, first_line)
        if len(piece) > left_bytes:
            piece = piece[: piece.rfind(b"\n", 0, left_bytes) + 1]
            left_bytes = 0
        if piece:
            yield piece
        left_bytes -= len(piece)
        first_line += _LINES_PER_BATCH


def write(url: str, *, size_bytes: int, seed: int) -> int:
    """Write a log to a local path or any fsspec URL and return its size in bytes.

    Missing directories above it are made. A name that ends in ``.gz`` gets a gzip file, the same
    bytes each time; the size is the unpacked one.
    """
    import fsspec

    file_system, path = fsspec.url_to_fs(url)
    parent = path.rstrip("/").rpartition("/")[0]
    if parent:
        file_system.makedirs(parent, exist_ok=True)
    with file_system.open(path, "wb") as stored:
        if not path.endswith(".gz"):
            return _write_all(stored, size_bytes, seed)
        with gzip.GzipFile("", "wb", compresslevel=6, fileobj=stored, mtime=0) as packed:
            return _write_all(packed, size_bytes, seed)


def _write_all(file: IO[bytes] | gzip.GzipFile, size_bytes: int, seed: int) -> int:
    written_bytes = 0
    for piece in generate(size_bytes, seed):
        file.write(piece)
        written_bytes += len(piece)
    return written_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pools:
    """The texts that lines are made of; picking at random keeps the shares they were made with."""

    clients: "pa.Array"
    methods: "pa.Array"  # the last ones are whole dirty requests
    urls: "pa.Array"  # by rank; the last is empty, for dirty requests
    protocols: "pa.Array"  # the last is empty
    results: "pa.Array"  # status and size
    endings: "pa.Array"  # referer and user agent
    url_of_draw: "npt.NDArray[np.int32]"  # Zipf's law as a table


def _mixed(value: int) -> int:
    """One output of splitmix64; `_draws` is the same on arrays."""
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & _MASK_64
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & _MASK_64
    return value ^ (value >> 31)


def _draws(seed: int, first: int, count: int) -> "Draws":
    """Draws ``first`` to ``first + count`` of the seed's stream, 64 random bits each."""
    import numpy as np

    start = (_mixed(seed & _MASK_64) + first * _GAMMA) & _MASK_64
    values = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_GAMMA) + np.uint64(start)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Draws = values ^ (values >> np.uint64(31))
    return mixed


def _batch(pools: _Pools, seed: int, first_line: int) -> bytes:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    draws = _draws(seed, first_line * _DRAWS_PER_LINE, _LINES_PER_BATCH * _DRAWS_PER_LINE)
    one, two = draws[0::2], draws[1::2]

    def bits(values: "Draws", low: int, count: int) -> "npt.NDArray[np.int64]":
        picked: npt.NDArray[np.int64] = (
            (values >> np.uint64(low)) & np.uint64((1 << count) - 1)
        ).astype(np.int64)
        return picked

    method = bits(one, 0, 16)
    clean_count = len(pools.methods) - len(_DIRTY_REQUESTS)
    protocol_count = len(pools.protocols) - 1
    is_dirty = method >= _DIRTY_FROM
    dirty_method = clean_count + method % len(_DIRTY_REQUESTS)
    url = pools.url_of_draw[bits(one, 16, 32) * len(pools.url_of_draw) >> 32]
    # The product of two even draws leans to small numbers: few clients make most requests.
    client = bits(one, 48, 13) * bits(two, 0, 13) >> 13
    columns = [
        pools.clients.take(pa.array(client)),
        _times(first_line),
        pools.methods.take(pa.array(np.where(is_dirty, dirty_method, method % clean_count))),
        pools.urls.take(pa.array(np.where(is_dirty, URL_COUNT, url))),
        pools.protocols.take(
            pa.array(np.where(is_dirty, protocol_count, bits(two, 13, 16) % protocol_count))
        ),
        pools.results.take(pa.array(bits(two, 29, 13))),
        pools.endings.take(pa.array(bits(two, 42, 13))),
    ]
    lines = pc.binary_join_element_wise(*columns, b"")
    _, offsets, text = lines.buffers()
    end = int(np.frombuffer(offsets, np.int32, len(lines) + 1)[-1])
    return bytes(memoryview(text)[:end])


def _times(first_line: int) -> "pa.Array":
    """``[01/Jul/2024:00:00:00 +0000] `` of each line of a batch."""
    import numpy as np
    import pyarrow as pa

    first = first_line // _LINES_PER_SECOND
    last = (first_line + _LINES_PER_BATCH - 1) // _LINES_PER_SECOND
    texts = pa.array([_time_text(_FIRST_SECOND + s) for s in range(first, last + 1)], pa.binary())
    seconds = np.arange(first_line, first_line + _LINES_PER_BATCH) // _LINES_PER_SECOND
    return texts.take(pa.array(seconds - first))


def _time_text(second: int) -> bytes:
    from datetime import UTC, datetime

    t = datetime.fromtimestamp(second, UTC)
    day = f"{t.day:02d}/{_MONTHS[t.month - 1]}/{t.year}"
    return f"[{day}:{t.hour:02d}:{t.minute:02d}:{t.second:02d} +0000] ".encode()


def _build_pools(seed: int) -> _Pools:
    import numpy as np
    import pyarrow as pa

    def binary(texts: Sequence[bytes]) -> "pa.Array":
        return pa.array(texts, pa.binary())

    def draws_of(pool: int, count: int) -> list[int]:
        drawn: list[int] = _draws(_mixed(seed & _MASK_64) ^ pool, 0, count).tolist()
        return drawn

    urls = [_url(rank, draw) for rank, draw in enumerate(draws_of(1, URL_COUNT))]
    methods = [f'"{name} '.encode() for name, share in _METHODS for _ in range(share)]
    protocols = [f" {name}".encode() for name, share in _PROTOCOLS for _ in range(share)]
    statuses = [status for status, share in _STATUSES for _ in range(share)]
    ranks = np.arange(1, URL_COUNT + 1)
    weights = np.maximum((1 << 17) // ranks, 1)
    return _Pools(
        clients=binary([_client(draw) for draw in draws_of(2, _POOL_SIZE)]),
        methods=binary([*methods, *_DIRTY_REQUESTS]),
        urls=binary([*urls, b""]),
        protocols=binary([*protocols, b""]),
        results=binary([_result(draw, statuses) for draw in draws_of(3, _POOL_SIZE)]),
        endings=binary([_ending(draw, urls) for draw in draws_of(4, _POOL_SIZE)]),
        url_of_draw=np.repeat(np.arange(URL_COUNT, dtype=np.int32), weights),
    )


def _url(rank: int, draw: int) -> bytes:
    """Different for each rank, which is written into all but the most popular page."""
    if rank == 0:
        return b"/"
    section = _SECTIONS[draw % len(_SECTIONS)]
    word = _WORDS[(draw >> 8) % len(_WORDS)]
    other = _WORDS[(draw >> 16) % len(_WORDS)]
    suffix = _SUFFIXES[(draw >> 24) % len(_SUFFIXES)]
    path = f"/{section}/{word}-{rank}{suffix}"
    if (draw >> 32) % 8 == 0:
        query = _QUERIES[(draw >> 36) % len(_QUERIES)]
        path += query.format(w=word, v=other, n=(draw >> 44) % 1000)
    return path.encode()


def _client(draw: int) -> bytes:
    """Address, identity (never known) and user (rarely)."""
    a, b, c, d = draw.to_bytes(8, "little")[:4]
    address = f"2001:db8:{a:x}:{b:x}::{c:x}" if draw >> 60 == 0 else f"{a % 223 + 1}.{b}.{c}.{d}"
    user = f"user{d}" if (draw >> 32) % 50 == 0 else "-"
    return f"{address} - {user} ".encode()


def _result(draw: int, statuses: Sequence[int]) -> bytes:
    """Status and size; sizes spread over five powers of ten."""
    status = statuses[draw % len(statuses)]
    size = (draw >> 20) % 10 ** ((draw >> 60) % 5 + 2)
    return f"{status} {'-' if status == 304 else size}".encode()


def _ending(draw: int, urls: Sequence[bytes]) -> bytes:
    agent = _AGENTS[draw % len(_AGENTS)].encode()
    page = urls[(draw >> 8) % 1000]
    referer = b"-" if (draw >> 32) % 5 < 2 else b"https://www.example.test" + page
    return b' "%s" "%s"\n' % (referer, agent)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line: ``--size``, ``--seed``, ``--output``."""
    parser = argparse.ArgumentParser(description="Write a seeded web log.")
    parser.add_argument("--size", type=_byte_size, default="100MB", help="bytes, or 100MB, 1GiB")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", required=True, metavar="URL")
    given: Any = parser.parse_args(arguments)
    write(given.output, size_bytes=given.size, seed=given.seed)


def _byte_size(text: str) -> int:
    match = re.fullmatch(r"(\d+) *([kMGT]?)(i?)B?", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no size: write 1000, 100MB or 1GiB")
    number, prefix, binary = match.groups()
    base = 1024 if binary else 1000
    size: int = int(number) * base ** " kMGT".index(prefix or " ")
    return size


if __name__ == "__main__":
    main()
