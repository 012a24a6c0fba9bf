"""The standard jobs against plain Python: small dirty inputs, any number of maps and reducers."""

import random
import re
from pathlib import Path

import pytest

from minimr.errors import JobUsageError
from minimr.registry import load_job
from tests import oracles
from tests.jobs.job_runs import JobRuns, write_tree

TEXTS = {
    "a/plain.txt": b"The quick brown fox. the QUICK dog\nfox9 9fox\n",
    "a/with blank/ü name.txt": "Übung macht ß ẞ İ Σας ΣΑΣ\r\n中文字符、かな 豈 𠀀x\n".encode(),
    "a/latin1.txt": b"caf\xe9 na\xefve \xff\xfe na\xc3\xafve",
    "b/empty.txt": b"",
    "b/blanks.txt": b" \t \r\n\n\n",
    "b/one-long-line.txt": b"word fox " * 500,
    "top.txt": b"fox\x00the\x0bfox\x0cthe the_fox",
    "_hidden/no.txt": b"hidden",
    ".also": b"hidden",
}
VISIBLE = {name: text for name, text in TEXTS.items() if not name.startswith(("_", "."))}
LINES = (
    b"doc1\tthe fox the\n"
    b"http://User@Host.test:80/a b\tfox fox jumps\r\n"
    b"https://host.test/c\tover the \xff fox\n"
    b"no tab in this line\n"
    b"\ttext without a name\n"
    b"doc2\t\n"
    b"dir/doc3\ta\tb tab in text\n"
    b"doc1\tagain the doc\n"
    b"d!\tfox\nd\tfox\n"
    b"last\tfox without a line feed"
)
TOKENS = ("ascii", "unicode", "cjk")


@pytest.fixture(params=range(3))
def runs(request: pytest.FixtureRequest, tmp_path: Path) -> JobRuns:
    return JobRuns(tmp_path, random.Random(request.param))


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "texts", TEXTS)


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "lines.tsv"
    path.write_bytes(LINES)
    return path


@pytest.mark.parametrize("form", ["documents", "counts", "positions"])
@pytest.mark.parametrize("tokens", TOKENS)
def test_inverted_index(runs: JobRuns, texts: Path, lines: Path, tokens: str, form: str) -> None:
    options = {"tokens": tokens, **({} if form == "documents" else {form: "true"})}
    expected = oracles.inverted_index(oracles.documents_of_files(VISIBLE), tokens, form)
    assert runs.answer("inverted-index", texts, **options) == expected
    expected = oracles.inverted_index(oracles.documents_of_lines(LINES), tokens, form)
    assert runs.answer("inverted-index", lines, docs="lines", **options) == expected


@pytest.mark.parametrize("top", [1, 3, 10])
@pytest.mark.parametrize("tokens", TOKENS)
def test_term_vector(runs: JobRuns, texts: Path, lines: Path, tokens: str, top: int) -> None:
    options = {"tokens": tokens, **({} if top == 10 else {"top": str(top)})}
    expected = oracles.term_vectors(oracles.documents_of_files(VISIBLE), tokens, top)
    assert runs.answer("term-vector", texts, **options) == expected
    expected = oracles.term_vectors(oracles.documents_of_lines(LINES), tokens, top)
    assert set(expected) >= {b"host.test", b"doc1", b"dir"}
    assert runs.answer("term-vector", lines, docs="lines", **options) == expected


PAGES = {
    "index.html": b'<A HREF="a/one.html#top">1</A><a href=a/one.html>again</a> <a name=x>',
    "a/one.html": b"<a href='../index.html?q=1&amp;r=2'>up</a><a href=\" //other.test/x \ty\n\">",
    "a/broken.htm": b'<a href="unclosed>text <a href=next.html <a href="x\xffy" href=second>',
    "a/with blank.html": b'<a href="">self</a><a href>none</a><a href class=x href=late>',
    "a/script.html": b"<script><a href=no></script><!-- <a href=no> --><a/href=s/><a href=&#xe9;>",
    "a/other.html": b'<a href="mailto:x@y">m</a><a href="javascript:void(0)">j</a>'
    b'<a href="http://[bad/"><a href="HTTP://UP.test/Path#frag">u</a><a href="\xea\xb0\x80">k</a>'
    b'<base href="http://no.test/">',
    "a/not.txt": b"<a href=no>",
    "a/page.HTML": b"<a href=no>",
    "empty.html": b"",
}  # fmt: skip


@pytest.mark.parametrize("value", ["pages", "count", "links"])
@pytest.mark.parametrize("base", [None, "http://site.test/", "https://b.test/deep/"])
def test_link_graph(runs: JobRuns, tmp_path: Path, base: str | None, value: str) -> None:
    source = write_tree(tmp_path / "pages", PAGES)
    bad = b'<a href="http://[bad/">'
    pages = {name: page if base is None else page.replace(bad, b"") for name, page in PAGES.items()}
    options = {} if value == "pages" else {"value": value}
    if base is not None:
        options |= {"links": "resolved", "base": base}
    expected = oracles.link_graph(pages, base=base, value=value)
    assert expected
    assert runs.answer("link-graph", source, **options) == expected


@pytest.mark.parametrize("broken", [b"<![x[" * 3, b"<a href='&#%s;'>" % (b"1" * 5000)])
def test_link_graph_of_a_page_the_parser_gives_up_on_keeps_the_links_before(
    runs: JobRuns, tmp_path: Path, broken: bytes
) -> None:
    source = write_tree(tmp_path / "pages", {"x.html": b"<a href=a>" + broken})
    assert runs.answer("link-graph", source) == {b"a": b"x.html"}


GREP = b"one\r\ntwo\n\ntw\xf6\nTWO two\nthree\tfour\n\x00two\nlast two"


@pytest.mark.parametrize(
    "pattern", ["two", "^t", "o$", r"tw\xf6", "(?i)TWO$", "^$", "o.t", "", "ee\tf", "zzz", "ö"]
)
def test_grep(runs: JobRuns, tmp_path: Path, pattern: str) -> None:
    source = tmp_path / "lines"
    source.write_bytes(GREP * 40)
    python = pattern.encode().replace(rb"\xf6", b"\xf6").replace(b"$", rb"\Z")
    expected = oracles.grep_lines(GREP * 40, python)
    result = runs.run("grep", source, {"pattern": pattern})
    assert b"".join(runs.parts(result)) == b"".join(line + b"\n" for line in expected)
    counted = runs.run("grep", source, {"pattern": pattern, "count": "true", "escape": "true"})
    text = pattern.replace("\\", "\\\\").replace("\t", "\\t").encode()
    assert b"".join(runs.parts(counted)) == text + b"\t%d\n" % len(expected)


EDGES = (
    b"# comment\n1\t2\n1 2\r\n  3   \t2  \n2 1 weight 5\n\n#2 7\n #x 2\r\n4\r5 6\n7\n"
    b"a\xff b\xfe\n\r\n \t \n8\x0b9 2\n\xc3\xa9 2\n10 2\r"
)


@pytest.mark.parametrize("value", ["nodes", "count"])
@pytest.mark.parametrize("data", [EDGES, b"# only\n#comments", b"", EDGES * 100])
def test_reverse_edges(runs: JobRuns, tmp_path: Path, data: bytes, value: str) -> None:
    source = tmp_path / "edges"
    source.write_bytes(data)
    found, malformed = oracles.reverse_edges(data)
    expected = {
        node: b" ".join(sorted(sources)) if value == "nodes" else b"%d" % len(sources)
        for node, sources in found.items()
    }
    assert runs.answer("reverse-edges", source, value=value) == expected
    counters = runs.run("reverse-edges", source, {}).counters
    assert counters.get("map.malformed_records", 0) == malformed


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("inverted-index", {"token": "ascii"}, "it knows tokens, docs, counts, positions"),
        ("inverted-index", {"tokens": "x"}, "tokens='x' is none of ascii, unicode, cjk"),
        ("inverted-index", {"docs": "x"}, "docs='x' is none of files, lines"),
        ("inverted-index", {"counts": "yes"}, "counts='yes' is none of false, true"),
        ("inverted-index", {"counts": "true", "positions": "true"}, "choose one"),
        ("term-vector", {"top": "0"}, "top='0' must be a whole number from 1"),
        ("link-graph", {"links": "x"}, "links='x' is none of raw, resolved"),
        ("link-graph", {"value": "x"}, "value='x' is none of pages, count, links"),
        ("link-graph", {"base": "x"}, "base='x' must be a URL"),
        ("grep", {}, "grep: pattern is missing: say --set pattern=RE"),
        ("grep", {"pattern": "(a"}, "no regular expression of RE2: "),
        ("grep", {"pattern": r"(a)\1"}, "no regular expression of RE2: "),
        ("grep", {"pattern": "a", "count": "1"}, "count='1' is none of false, true"),
        ("reverse-edges", {"value": "x"}, "value='x' is none of nodes, count"),
        ("reverse-edges", {"top": "1"}, "has no setting 'top': it knows value"),
    ],
)
def test_wrong_options_are_named_with_what_is_allowed(
    name: str, settings: dict[str, str], message: str
) -> None:
    with pytest.raises(JobUsageError, match=re.escape(message)):
        load_job(name, settings)
