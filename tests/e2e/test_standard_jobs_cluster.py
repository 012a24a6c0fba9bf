"""Every standard job on a cluster: files on minigfs in small chunks, workers on Ray."""

from collections.abc import Iterator, Mapping

import fsspec
import numpy as np
import pytest

import minimr
from minimr.datasets.gensort import generate
from minimr.datasets.valsort import checksum, summarize
from minimr.format_options import is_format_setting
from minimr.registry import load_job
from tests import oracles

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

TEXTS = {
    "a/one.txt": b"The quick brown fox. the QUICK dog \xff\xe9 fox\r\n" * 60,
    "a/with blank.txt": "Übung ß 中文字符 かな fox\n".encode() * 40,
    "b/latin1.txt": b"caf\xe9 na\xefve fox " * 100,
}
PAGES = {
    "index.html": b'<A HREF="a/one.html#top">1</A><a href=a/one.html>again</a>' * 30,
    "a/one.html": b"<a href='../index.html?q=1&amp;r=2'>up</a><a href=\" x \ty\n\">" * 20,
    "a/broken.htm": b'<a href="unclosed>text <a href=next.html <a href="x\xffy" href=second>',
    "a/not.txt": b"<a href=no>",
}
EDGES = b"# nodes\r\n" + b"".join(b"%d\t%d\r\n" % (n, n * n % 17) for n in range(700))
LOG = b"".join(b'h "GET /page-%d HTTP/1.0" 200\r\n' % (n % 13) for n in range(900)) + b"junk"
RECORDS = generate(0, 3000)


@pytest.fixture(scope="module")
def cluster() -> Iterator[minimr.LocalCluster]:
    with minimr.LocalCluster(workers=2, chunkservers=2, chunk_bytes=1025) as cluster:
        fs = fsspec.filesystem("minigfs", **cluster.storage_options)
        files = {f"/{folder}/{name}": content for folder, tree in (("texts", TEXTS),
                 ("pages", PAGES)) for name, content in tree.items()}  # fmt: skip
        files |= {"/edges": EDGES, "/log": LOG, "/records": RECORDS.tobytes()}
        for path, content in files.items():
            fs.makedirs(path.rpartition("/")[0] or "/", exist_ok=True)
            fs.pipe_file(path, content)
        yield cluster


def output_of(cluster: minimr.LocalCluster, name: str, source: str, **settings: str) -> list[bytes]:
    """The parts of one run, in order."""
    own = {key: value for key, value in settings.items() if not is_format_setting(key)}
    job = load_job(name, own)
    output = f"minigfs:///out-{name}-{abs(hash(tuple(settings.items())))}"
    result = cluster.run(
        job, input=f"minigfs:///{source}", output=output, settings=settings, split_size=5000,
        reducers=None if job.is_map_only else 3,
    )  # fmt: skip
    fs = fsspec.filesystem("minigfs", **cluster.storage_options)
    path = output.removeprefix("minigfs://")
    return [fs.cat_file(f"{path}/{part.name}") for part in result.parts]


def lines_of(parts: list[bytes]) -> Mapping[bytes, bytes]:
    pairs = [line.split(b"\t", 1) for line in oracles.lines_of(b"".join(parts))]
    answer = dict(pairs)
    assert len(answer) == len(pairs), "no key comes twice"
    return answer


def test_indexes_and_counts(cluster: minimr.LocalCluster) -> None:
    documents = oracles.documents_of_files(TEXTS)
    found = lines_of(output_of(cluster, "inverted-index", "texts", counts="true"))
    assert found == oracles.inverted_index(documents, "ascii", "counts")
    found = lines_of(output_of(cluster, "term-vector", "texts", tokens="cjk"))
    assert found == oracles.term_vectors(documents, "cjk", 10)
    found = lines_of(output_of(cluster, "word-count", "texts", tokens="unicode"))
    counts = oracles.word_counts(b"\n".join(TEXTS.values()), "unicode")
    assert found == {word: b"%d" % count for word, count in counts.items()}


def test_links_and_edges(cluster: minimr.LocalCluster) -> None:
    found = lines_of(output_of(cluster, "link-graph", "pages", links="resolved"))
    assert found == oracles.link_graph(PAGES, base="http://site.test/")
    sources, _ = oracles.reverse_edges(EDGES)
    found = lines_of(output_of(cluster, "reverse-edges", "edges"))
    assert found == {node: b" ".join(sorted(each)) for node, each in sources.items()}


def test_matching_lines_stay_in_order(cluster: minimr.LocalCluster) -> None:
    parts = output_of(cluster, "grep", "log", pattern=r"/page-1\d? HTTP")
    assert len(parts) > 3
    assert oracles.lines_of(b"".join(parts)) == oracles.grep_lines(LOG, rb"/page-1\d? HTTP")


def test_requests_are_counted(cluster: minimr.LocalCluster) -> None:
    parts = output_of(cluster, "url-count", "log")
    assert oracles.read_counts(parts) == oracles.url_counts(LOG)[0]


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_records_are_sorted_over_all_parts(cluster: minimr.LocalCluster, order: str) -> None:
    parts = output_of(cluster, "sort", "records", order=order)
    assert sum(map(bool, parts)) == 3
    rows = np.frombuffer(b"".join(parts), np.uint8).reshape(-1, 100)
    found = summarize(rows if order == "asc" else rows[::-1])
    assert (found.unordered_count, found.checksum) == (0, checksum(RECORDS))
