"""Plain-Python answers of the standard jobs: slow, obvious, and nothing shared with the product.

Documents are given as (path below the input folder, content).
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from html.parser import HTMLParser
from typing import Any
from urllib.parse import quote, urldefrag, urljoin, urlsplit

__all__ = [
    "documents_of_files",
    "documents_of_lines",
    "grep_lines",
    "inverted_index",
    "lines_of",
    "link_graph",
    "read_counts",
    "reverse_edges",
    "sorted_records",
    "term_vectors",
    "url_counts",
    "url_counts_by_field",
    "word_counts",
    "words_of",
]


def lines_of(data: bytes) -> list[bytes]:
    """Lines end at LF only; a last one without its LF counts."""
    lines = data.split(b"\n")
    return lines[:-1] if lines[-1] == b"" else lines


def _parts(text: bytes) -> list[bytes]:
    """Split at runs of spaces and tabs, ignoring leading and trailing ones."""
    return [part for part in text.replace(b"\t", b" ").split(b" ") if part]


def url_counts(data: bytes) -> tuple[Counter[bytes], int]:
    """(requests by URL, malformed lines): the quoted rule."""
    counts: Counter[bytes] = Counter()
    malformed = 0
    for line in lines_of(data):
        _, quote, rest = line.partition(b'"')
        parts = _parts(rest.partition(b'"')[0]) if quote else []
        if len(parts) < 2:
            malformed += 1
        else:
            counts[parts[1]] += 1
    return counts, malformed


def url_counts_by_field(data: bytes, field: int) -> tuple[Counter[bytes], int]:
    """(requests by URL, malformed lines): the ``field=N`` rule."""
    counts: Counter[bytes] = Counter()
    malformed = 0
    for line in lines_of(data):
        parts = _parts(line)
        if len(parts) < field:
            malformed += 1
        else:
            counts[parts[field - 1]] += 1
    return counts, malformed


def read_counts(parts: Iterable[bytes]) -> Counter[bytes]:
    """The counts in text parts; a key that stands in two parts is an error."""
    counts: Counter[bytes] = Counter()
    for part in parts:
        for line in lines_of(part):
            key, _, value = line.rpartition(b"\t")
            assert key not in counts, f"{key!r} twice"
            counts[key] = int(value)
    return counts


def words_of(text: bytes, tokens: str) -> list[bytes]:
    """The words of a text, in order."""
    if tokens == "ascii":
        return re.findall(rb"[a-z0-9]+", text.lower())
    words = re.findall(r"\w+", text.decode("utf-8", "replace").lower())
    if tokens == "cjk":
        words = [part for word in words for part in _split_at_ideographs(word)]
    return [word.encode() for word in words]


def _split_at_ideographs(word: str) -> list[str]:
    parts = [""]
    for character in word:
        if unicodedata.name(character, "").startswith(
            ("CJK UNIFIED IDEO", "CJK COMPATIBILITY IDEO")
        ):
            parts += [character, ""]
        else:
            parts[-1] += character
    return [part for part in parts if part]


def word_counts(text: bytes, tokens: str) -> Counter[bytes]:
    return Counter(words_of(text, tokens))


def documents_of_files(files: dict[str, bytes]) -> list[tuple[bytes, bytes]]:
    """(docid, text) of each file."""
    return [(path.replace(" ", "%20").encode(), files[path]) for path in sorted(files)]


def documents_of_lines(data: bytes) -> list[tuple[bytes, bytes]]:
    """(docid, text) of each line that has a tab."""
    split = [line.split(b"\t", 1) for line in lines_of(data)]
    return [(parts[0], parts[1]) for parts in split if len(parts) == 2]


def inverted_index(
    documents: list[tuple[bytes, bytes]], tokens: str, form: str
) -> dict[bytes, bytes]:
    """``form`` is documents, counts or positions."""
    index: dict[bytes, dict[bytes, list[int]]] = {}
    for docid, text in documents:
        for position, word in enumerate(words_of(text, tokens)):
            index.setdefault(word, {}).setdefault(docid, []).append(position)
    answer = {}
    for word, found in index.items():
        entries = []
        for docid in sorted(found):
            positions = found[docid]
            if form == "documents":
                entries.append(docid)
            elif form == "counts":
                entries.append(docid + b":" + str(len(positions)).encode())
            else:
                entries.append(docid + b":" + ",".join(map(str, positions)).encode())
        answer[word] = b" ".join(entries)
    return answer


def term_vectors(documents: list[tuple[bytes, bytes]], tokens: str, top: int) -> dict[bytes, bytes]:
    counts: dict[bytes, Counter[bytes]] = {}
    for docid, text in documents:
        found = re.match(rb"[A-Za-z][A-Za-z0-9+.-]*://(?:[^/@?#]*@)?([^/:?#]+)", docid)
        host = found[1].lower() if found else docid.split(b"/")[0]
        counts.setdefault(host, Counter()).update(words_of(text, tokens))
    return {
        host: b" ".join(
            word + b":" + str(count).encode()
            for word, count in sorted(found.items(), key=lambda item: (-item[1], item[0]))[:top]
        )
        for host, found in counts.items()
        if found
    }


class _Anchors(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.hrefs: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "a":
            return
        for name, value in attrs:
            if name == "href" and value is not None:
                self.hrefs.append(value)
                return


def link_graph(
    pages: dict[str, bytes], *, base: str | None = None, value: str = "pages"
) -> dict[bytes, bytes]:
    """Raw targets, or resolved ones if there is a ``base``."""
    links: dict[bytes, list[bytes]] = {}
    for page, content in pages.items():
        if not page.endswith((".html", ".htm")):
            continue
        anchors = _Anchors()
        anchors.feed(content.decode("utf-8", errors="replace"))
        anchors.close()
        for href in anchors.hrefs:
            target = href.strip(" \t\n\r\f\v")
            if base is not None:
                target = urldefrag(urljoin(base + quote(page, safe="/"), target))[0]
                if urlsplit(target).scheme not in ("http", "https"):
                    continue
            target = target.replace("\t", "%09").replace("\n", "%0A").replace("\r", "%0D")
            links.setdefault(target.encode(), []).append(page.encode())
    if value == "links":
        return {target: str(len(found)).encode() for target, found in links.items()}
    if value == "count":
        return {target: str(len(set(found))).encode() for target, found in links.items()}
    return {target: b" ".join(sorted(set(found))) for target, found in links.items()}


def grep_lines(data: bytes, pattern: bytes) -> list[bytes]:
    return [line for line in lines_of(data) if re.search(pattern, line)]


def reverse_edges(data: bytes) -> tuple[dict[bytes, set[bytes]], int]:
    """(sources by target, lines without a target)."""
    sources: dict[bytes, set[bytes]] = {}
    malformed = 0
    for line in lines_of(data):
        if line.startswith(b"#"):
            continue
        parts = _parts(line[:-1] if line.endswith(b"\r") else line)
        if len(parts) < 2:
            malformed += 1
        else:
            sources.setdefault(parts[1], set()).add(parts[0])
    return sources, malformed


def sorted_records(
    records: list[bytes], key: Callable[[bytes], Any], *, descending: bool, unique: bool
) -> list[bytes]:
    """In order of key; equal keys in their order, or, if ``unique``, in order of the records."""
    if unique:
        records = sorted(set(records))
    return sorted(records, key=key, reverse=descending)
