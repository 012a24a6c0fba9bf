"""word-count against plain Python on whole files, on fuzzed bytes and real documents."""

import random
import re
import sys
import tarfile
import unicodedata
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minimr.errors import JobUsageError
from minimr.jobs.word_count import CJK_IDEOGRAPH_RANGES, job

MODES = ("ascii", "unicode", "cjk")
Counts = Counter[bytes]

_CJK = "".join(f"{chr(first)}-{chr(last)}" for first, last in CJK_IDEOGRAPH_RANGES)
_WORD_OR_IDEOGRAPH = re.compile(rf"(?=\w)[{_CJK}]|[^\W{_CJK}]+")


def oracle(data: bytes, tokens: str) -> Counts:
    """The rule of the job's documentation, on the whole file at once."""
    if tokens == "ascii":
        return Counter(re.findall(rb"[a-z0-9]+", data.lower()))
    text = data.decode("utf-8", "replace").lower()
    words = re.findall(r"\w+", text) if tokens == "unicode" else _WORD_OR_IDEOGRAPH.findall(text)
    return Counter(word.encode() for word in words)


def run_map(data: bytes, tokens: str, cut_chance: float, seed: int) -> Counts:
    """Map the data in random blocks of whole lines and add up, as combiner and reducer do."""
    rng = random.Random(seed)
    blocks: list[list[bytes]] = [[]]
    for line in re.findall(rb"[^\n]*\n|[^\n]+", data):
        blocks[-1].append(line)
        if rng.random() < cut_chance:
            blocks.append([])
    column = pa.array([b"".join(block) for block in blocks], pa.large_binary())
    map_batches = job({"tokens": tokens}).map_batches
    assert map_batches is not None
    total: Counts = Counter()
    for table in map_batches(pa.record_batch({"block": column})):
        assert table.schema == pa.schema([("key", pa.large_binary()), ("value", pa.int64())])
        keys = table.column("key").to_pylist()
        assert len(set(keys)) == len(keys), "a block gives each word once"
        total.update(dict(zip(keys, table.column("value").to_pylist(), strict=True)))
    return total


PIECES = [
    *(b"a", b"The", b"word9", b"exactly8", b"nine_char", b"sixteen_bytes_16", b"seventeen_bytes_x"),
    *(b" ", b"\n", b"\r\n", b"\t", b"\0", b"_", b"-", b"\xff", b"\xe4", b"\xc3", b"\xf0\x9f"),
    *(c.encode() for c in ("é", "É", "ß", "ẞ", "Σ", "ΑΣ", "σς", "İ", "\u0131", "ǅ", "ﬁ", "Ⅷ")),
    *(c.encode() for c in ("²", "۳", "中", "文字", "々", "\u3007", "㐀", "豈", "𠀀", "\U0001d400")),
    *(c.encode() for c in ("かな", "한글", "。", "😀")),
    *(c.encode() for c in ("e\u0301", "\u200d", "\u00ad", "\u2028", "\u0085", "\ufeff", "\ufffd")),
]
dirty = st.lists(st.sampled_from(PIECES), max_size=40).map(b"".join)


@settings(max_examples=300)
@given(
    data=dirty | st.binary(max_size=60) | st.text(max_size=60).map(str.encode),
    tokens=st.sampled_from(MODES),
    seed=st.integers(0, 2**32),
)
def test_any_bytes_in_any_blocks_give_the_words_of_the_whole_file(
    data: bytes, tokens: str, seed: int
) -> None:
    assert run_map(data, tokens, 0.4, seed) == oracle(data, tokens)


@pytest.mark.parametrize("tokens", MODES)
def test_words_at_the_borders_of_the_kernels_pieces(tokens: str) -> None:
    """Words of every length around 8 and 16 bytes, moved across the borders of its windows."""
    rng = random.Random(7)
    for _ in range(3):
        words = [b"x" * rng.randrange(1, 40) + b"%d" % rng.randrange(9) for _ in range(60_000)]
        data = rng.choice([b" ", b"\n", b" \xc3\xa9\n"]).join(words)
        assert run_map(data, tokens, 0.0001, 1) == oracle(data, tokens)


@pytest.mark.parametrize("tokens", MODES)
def test_a_file_of_one_line_and_one_word(tokens: str) -> None:
    word = b"abc" * 500_000
    assert run_map(word, tokens, 1.0, 0) == {word: 1}
    assert run_map(b"", tokens, 1.0, 0) == {}


def test_every_character_of_this_python_is_classified_as_its_regular_expressions_do() -> None:
    codes = [code for code in range(sys.maxunicode + 1) if not 0xD800 <= code <= 0xDFFF]
    data = "\n".join(map(chr, codes)).encode()
    for tokens in ("unicode", "cjk"):
        assert run_map(data, tokens, 0.00001, 3) == oracle(data, tokens)


def test_ideographs_are_what_unicode_names_so() -> None:
    """Assigned characters of the ranges, and no others, have such a name."""
    named = {
        code
        for code in range(sys.maxunicode + 1)
        if unicodedata.name(chr(code), "").startswith(
            ("CJK UNIFIED IDEOGRAPH", "CJK COMPATIBILITY IDEOGRAPH")
        )
    }
    in_ranges = {
        code
        for first, last in CJK_IDEOGRAPH_RANGES
        for code in range(first, last + 1)
        if chr(code).isalnum()
    }
    assert in_ranges == named


@pytest.mark.parametrize("tokens", MODES)
@pytest.mark.parametrize(
    "archive", ["inaugural-en.tar.gz", "genesis-latin1.tar.gz", "novels-zh.tar.gz"]
)
def test_real_documents_give_what_python_says(
    real_datasets: Path, archive: str, tokens: str
) -> None:
    documents = 0
    with tarfile.open(real_datasets / "documents" / archive) as tar:
        for member in tar:
            stream = tar.extractfile(member)
            if stream is None:
                continue
            data = stream.read(300_000)
            assert run_map(data, tokens, 0.01, documents) == oracle(data, tokens), member.name
            documents += 1
            if documents == 10:
                break
    assert documents


def test_ascii_is_the_default() -> None:
    assert job({}) == job({"tokens": "ascii"})


@pytest.mark.parametrize(
    ("settings_given", "message"),
    [({"tokens": "latin"}, "tokens='latin' is none of ascii, unicode, cjk"), ({"top": "1"}, "top")],
)
def test_bad_settings_are_refused(settings_given: dict[str, str], message: str) -> None:
    with pytest.raises(JobUsageError, match=message):
        job(settings_given)
