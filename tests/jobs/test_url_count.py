"""url-count against two oracles: plain Python on fuzzed bytes, and awk on real logs."""

import gzip
import os
import random
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minimr import Job
from minimr.counters import collecting
from minimr.errors import JobUsageError
from minimr.jobs.url_count import KeepTop, job

CASES = Path(__file__).parents[2] / "datasets" / "cases"
MALFORMED = "map.malformed_records"
Counts = Counter[bytes]


def parts_of(text: bytes) -> list[bytes]:
    return [part for part in re.split(rb"[ \t]+", text) if part]


def lines_of(data: bytes) -> list[bytes]:
    lines = data.split(b"\n")
    return lines if lines[-1] else lines[:-1]


def oracle(data: bytes, field: int | None) -> tuple[Counts, int]:
    """The rule of the job's documentation, a line at a time."""
    counts: Counts = Counter()
    malformed = 0
    for line in lines_of(data):
        if field is None:
            quoted = line.split(b'"')
            parts, wanted = parts_of(quoted[1]) if len(quoted) > 1 else [], 2
        else:
            parts, wanted = parts_of(line), field
        if len(parts) < wanted:
            malformed += 1
        else:
            counts[parts[wanted - 1]] += 1
    return counts, malformed


def job_for(field: int | None, **more: str) -> Job:
    return job({**({} if field is None else {"field": str(field)}), **more})


def blocks_of(data: bytes, cut_chance: float, rng: random.Random) -> Iterator[bytes]:
    block: list[bytes] = []
    for line in re.findall(rb"[^\n]*\n|[^\n]+", data):
        block.append(line)
        if rng.random() < cut_chance:
            yield b"".join(block)
            block = []
    yield b"".join(block)


def run_map(job: Job, blocks: list[bytes]) -> tuple[Counts, int]:
    """Map all blocks and add up, as combiner and reducer do."""
    assert job.map_batches is not None
    batch = pa.record_batch({"block": pa.array(blocks, pa.large_binary())})
    total: Counts = Counter()
    with collecting() as counters:
        for table in job.map_batches(batch):
            assert table.schema == pa.schema([("key", pa.binary()), ("value", pa.int64())])
            keys = table.column("key").to_pylist()
            assert len(set(keys)) == len(keys), "a block gives each key once"
            total.update(dict(zip(keys, table.column("value").to_pylist(), strict=True)))
    return total, counters.get(MALFORMED, 0)


DIRTY = [
    b'"',
    b"\r",
    b"\t",
    b" ",
    b"  ",
    b"   \t ",
    b"\0",
    b"\xff\xfe",
    b"\xc3\xa9",
    "中".encode(),
    b"\xef\xbb\xbf",
    b"\xc4\x80",
    b"\x85",
    b"\x0b\x0c\x1c",
    b"#",
    b",'\\\"",
    b"GET",
    b"/a?b=1",
    b"/index.html",
    b'1.2.3.4 - - [10/Oct/2000:13:55:36 -0700] "GET /x HTTP/1.0" 200 23',
]
dirty_lines = st.lists(st.sampled_from(DIRTY), max_size=8).map(b"".join)
dirty_logs = st.tuples(st.lists(dirty_lines, max_size=12), st.sampled_from([b"", b"\n"])).map(
    lambda log: b"\n".join(log[0]) + log[1]
)


@settings(max_examples=400)
@given(
    data=dirty_logs | st.binary(max_size=80),
    field=st.none() | st.integers(1, 9),
    seed=st.integers(0, 2**32),
)
def test_any_bytes_in_any_blocks_are_counted_by_the_rule(
    data: bytes, field: int | None, seed: int
) -> None:
    blocks = list(blocks_of(data, 0.3, random.Random(seed)))
    assert run_map(job_for(field), blocks) == oracle(data, field)


@pytest.mark.parametrize("field", [None, 1, 3])
def test_lines_without_requests_ahead_of_the_log_do_not_hide_it(field: int | None) -> None:
    """The scanner guesses columns from a file's first lines; the guess must not matter."""
    for ahead in (b"none\n" * 2000, b"\n" * 2000, b'"' * 50 + b"\n", b" " * 3000 + b"\n"):
        data = ahead + b'h "GET /u x" y\n' * 3
        assert run_map(job_for(field), [data]) == oracle(data, field)


@pytest.mark.parametrize("field", [None, 2])
def test_very_long_lines_are_whole(field: int | None) -> None:
    long = b"x" * 3_000_000
    data = b'h "GET /' + long + b' HTTP/1.0" 200\n' + long + b' "a b"\nq "GET ' + long
    assert run_map(job_for(field), [data]) == oracle(data, field)


@pytest.mark.parametrize("case", sorted(path.stem for path in CASES.glob("*.log")))
@pytest.mark.parametrize("field", [None, 7])
def test_hand_made_cases(case: str, field: int | None) -> None:
    suffix = "url-count" if field is None else f"field-{field}"
    expected: Counts = Counter()
    malformed = 0
    for line in (CASES / f"{case}.{suffix}.tsv").read_bytes().split(b"\n")[:-1]:
        key, _, count = line.rpartition(b"\t")
        if key == MALFORMED.encode():
            malformed = int(count)
        else:
            expected[key] = int(count)
    data = (CASES / f"{case}.log").read_bytes()
    assert run_map(job_for(field), [data]) == (expected, malformed)


AWK_RULE = r"""
BEGIN { FS = "\"" }
NF > 1 && split($2, part, " ") >= 2 { count[part[2]]++; next }
{ malformed++ }
END { for (url in count) print url "\t" count[url]; print "\t" malformed + 0 }
"""
AWK_FIELD = r"""
NF >= N { count[$N]++; next }
{ malformed++ }
END { for (url in count) print url "\t" count[url]; print "\t" malformed + 0 }
"""


def awk(data: bytes, field: int | None) -> tuple[Counts, int]:
    arguments = ["awk", AWK_RULE] if field is None else ["awk", "-v", f"N={field}", AWK_FIELD]
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
    done = subprocess.run(arguments, input=data, capture_output=True, check=True, env=environment)
    *lines, last = [line.rpartition(b"\t") for line in lines_of(done.stdout)]
    return Counter({url: int(count) for url, _, count in lines}), int(last[2])


@pytest.mark.parametrize("field", [None, 1, 6, 7])
def test_real_logs_give_what_awk_and_python_say(real_datasets: Path, field: int | None) -> None:
    logs = sorted((real_datasets / "weblogs").glob("*.log.gz"))
    assert logs
    for path in logs:
        data = gzip.decompress(path.read_bytes())
        blocks = list(blocks_of(data, 0.001, random.Random(path.name)))
        counted = run_map(job_for(field), blocks)
        assert counted == oracle(data, field), path.name
        assert counted == awk(data, field), path.name


counts_by_key = st.dictionaries(st.binary(min_size=1, max_size=3), st.integers(1, 5), max_size=30)


@given(
    tables=st.lists(counts_by_key.filter(bool), max_size=5),
    limit=st.integers(1, 12),
)
def test_top_keeps_the_best_by_count_then_key(tables: list[dict[bytes, int]], limit: int) -> None:
    """Each table holds all values of its keys, several per key, as a reducer's tables do."""
    keep_top = KeepTop(limit)
    total: Counts = Counter()
    for index, table in enumerate(tables):
        counts = {b"%d%s" % (index, key): value for key, value in sorted(table.items())}
        doubled = [(key, value) for key, value in counts.items() for _ in range(2)]
        keys, values = zip(*doubled, strict=True)
        assert (
            keep_top(
                pa.table(
                    {"key": pa.array(keys, pa.binary()), "value": pa.array(values, pa.int64())}
                )
            )
            is None
        )
        total.update({key: 2 * value for key, value in counts.items()})

    best = keep_top.close()
    expected = sorted(total.items(), key=lambda item: (-item[1], item[0]))[:limit]
    rows = [] if best is None else best.to_pylist()
    assert [(row["key"], row["value"]) for row in rows] == expected


def test_top_sends_every_key_to_one_partition() -> None:
    top = job({"top": "3"})
    assert top.partition is not None
    assert {top.partition(key, 7) for key in (b"a", b"b", b"/long/url")} == {0}


@pytest.mark.parametrize(
    ("settings_given", "message"),
    [
        ({"fields": "7"}, "no setting 'fields'"),
        ({"field": "0"}, "field='0' must be a whole number from 1"),
        ({"field": "-1"}, "whole number"),
        ({"field": "x"}, "whole number"),
        ({"field": "²"}, "whole number"),
        ({"field": ""}, "whole number"),
        ({"field": "10001"}, "at most 10000"),
        ({"top": "0"}, "top='0'"),
        ({"top": "1.5"}, "top='1.5'"),
    ],
)
def test_bad_settings_are_refused(settings_given: dict[str, str], message: str) -> None:
    with pytest.raises(JobUsageError, match=re.escape(message)):
        job(settings_given)
