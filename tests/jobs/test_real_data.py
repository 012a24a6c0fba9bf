"""The standard jobs against plain Python on real documents, pages, graphs and logs.

Bytes that are not UTF-8, CRLF, Chinese text, EUC-KR pages and broken HTML are in there.
"""

import gzip
import random
import tarfile
from pathlib import Path

import pytest

from tests import oracles
from tests.jobs.job_runs import JobRuns, write_tree


@pytest.fixture(
    params=[
        pytest.param(0, id="threads"),
        pytest.param(2, id="processes", marks=pytest.mark.slow),  # they start for every run
    ]
)
def runs(request: pytest.FixtureRequest, tmp_path: Path) -> JobRuns:
    return JobRuns(
        tmp_path,
        random.Random(request.param),
        processes=request.param or None,
        split_sizes=(None, 60_013, 200_003),
    )


def members(archive: Path, *, every: int, cut_bytes: int, containing: str = "") -> dict[str, bytes]:
    """Some files of a tar archive, their beginnings."""
    found = {}
    with tarfile.open(archive) as tar:
        files = [each for each in tar if each.isfile() and containing in each.name]
        for member in files[::every]:
            stream = tar.extractfile(member)
            assert stream is not None
            found[member.name.removeprefix("./")] = stream.read(cut_bytes)
    assert found
    return found


@pytest.fixture(scope="module")
def documents(real_datasets: Path) -> dict[str, bytes]:
    folder = real_datasets / "documents"
    return {
        **members(folder / "inaugural-en.tar.gz", every=9, cut_bytes=20_000),
        **members(folder / "genesis-latin1.tar.gz", every=1, cut_bytes=15_000),
        **members(folder / "novels-zh.tar.gz", every=1, cut_bytes=40_000),
    }


@pytest.fixture(scope="module")
def pages(real_datasets: Path) -> dict[str, bytes]:
    folder = real_datasets / "html"
    manual = folder / "apache2-multilang-html.tar.xz"
    return {
        **members(folder / "postgresql-15-html.tar.xz", every=90, cut_bytes=100_000),
        **members(manual, every=120, cut_bytes=100_000),
        **members(manual, every=40, cut_bytes=50_000, containing="ko/"),
    }


@pytest.mark.parametrize("tokens", ["ascii", "unicode", "cjk"])
def test_indexes_of_documents(
    runs: JobRuns, tmp_path: Path, documents: dict[str, bytes], tokens: str
) -> None:
    source = write_tree(tmp_path / "documents", documents)
    named = oracles.documents_of_files(documents)
    for form in ("documents", "counts", "positions"):
        options = {"tokens": tokens, **({} if form == "documents" else {form: "true"})}
        expected = oracles.inverted_index(named, tokens, form)
        assert runs.answer("inverted-index", source, **options) == expected
    expected = oracles.term_vectors(named, tokens, 7)
    assert runs.answer("term-vector", source, tokens=tokens, top="7") == expected
    counts = oracles.word_counts(b"\n".join(documents.values()), tokens)
    assert runs.answer("word-count", source, tokens=tokens) == {
        word: b"%d" % count for word, count in counts.items()
    }


@pytest.mark.parametrize("base", [None, "http://site.test/"])
def test_links_of_manuals(
    runs: JobRuns, tmp_path: Path, pages: dict[str, bytes], base: str | None
) -> None:
    source = write_tree(tmp_path / "pages", pages)
    options = {} if base is None else {"links": "resolved"}
    for value in ("pages", "count", "links"):
        expected = oracles.link_graph(pages, base=base, value=value)
        assert len(expected) > 300
        assert runs.answer("link-graph", source, value=value, **options) == expected


@pytest.mark.parametrize("value", ["nodes", "count"])
def test_edges_of_a_graph(runs: JobRuns, tmp_path: Path, real_datasets: Path, value: str) -> None:
    data = gzip.decompress((real_datasets / "graph" / "wiki-Vote.txt.gz").read_bytes())
    (tmp_path / "graph.txt").write_bytes(data)
    found, malformed = oracles.reverse_edges(data)
    assert malformed == 0
    expected = {
        node: b" ".join(sorted(sources)) if value == "nodes" else b"%d" % len(sources)
        for node, sources in found.items()
    }
    assert runs.answer("reverse-edges", tmp_path / "graph.txt", value=value) == expected


@pytest.mark.parametrize("pattern", ["GET [^ ]*\\.gif", "(?i)^[a-z].*404 -$"])
def test_lines_and_order_of_logs(
    runs: JobRuns, tmp_path: Path, real_datasets: Path, pattern: str
) -> None:
    packed = (real_datasets / "weblogs" / "nasa_19950701_first11676.log.gz").read_bytes()
    data = gzip.decompress(packed)
    (tmp_path / "log").write_bytes(data)
    (tmp_path / "log.gz").write_bytes(packed)
    expected = oracles.grep_lines(data, pattern.encode())
    assert len(expected) > 10
    for source in (tmp_path / "log", tmp_path / "log.gz"):
        result = runs.run("grep", source, {"pattern": pattern})
        assert oracles.lines_of(b"".join(runs.parts(result))) == expected
    lines = oracles.lines_of(data)
    result = runs.run("sort", tmp_path / "log", {"records": "lines"})
    assert oracles.lines_of(b"".join(runs.parts(result))) == sorted(lines)
