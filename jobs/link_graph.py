"""The pages that link to each target.

Pages are the files ``*.html`` and ``*.htm`` of the input folder; a page is named by its path below
it. A link is each ``<a>`` start tag with an ``href`` that has a value (the first of the tag), as
Python's ``html.parser`` reports it; bytes are decoded as UTF-8 with errors replaced. Output: the
target, a tab, and the different pages that link to it, sorted by their bytes, joined by one blank.
Tab, LF and CR inside a target are written ``%09``, ``%0A`` and ``%0D``.

Settings:

``links=raw`` (default)
    The target is the value without outer white space.
``links=resolved``
    The target is the URL that the value means on its page, without its fragment; links that are
    neither http nor https are left out, and so is what is no URL. ``<base href>`` is ignored.
``base=http://site.test/``
    The URL of the input folder, for ``links=resolved``; a page's URL is this and its quoted path.
``value=count``
    Instead of the pages, how many they are.
``value=links``
    Instead of the pages, how many links there are.
"""

import string
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from urllib.parse import quote, urldefrag, urljoin, urlsplit

import minimr
from minimr.jobs.options import Options

__all__ = ["job"]

Page = tuple[str, bytes]
Resolve = Callable[[str, str], str | None]  # page and value to target; None: no link

_WRITTEN = str.maketrans({"\t": "%09", "\n": "%0A", "\r": "%0D"})


def job(settings: Mapping[str, str]) -> minimr.Job:
    """Build the job; ``JobUsageError`` for an unknown setting or value."""
    options = Options("link-graph", settings, ("links", "base", "value"))
    base = settings.get("base", "http://site.test/")
    if not urlsplit(base).netloc:
        raise options.wrong("base", "must be a URL, such as http://site.test/")
    is_resolved = options.choice("links", ("raw", "resolved")) == "resolved"
    resolve: Resolve = ResolvedLinks(base) if is_resolved else raw_link
    value = options.choice("value", ("pages", "count", "links"))
    pages = minimr.inputs.Files(suffixes=(".html", ".htm"))
    if value == "links":
        return minimr.Job(
            "link-graph",
            map=CountLinks(resolve),
            combine=minimr.agg.sum,
            reduce=minimr.agg.sum,
            input_format=pages,
        )
    return minimr.Job(
        "link-graph",
        map=LinksOfPage(resolve),
        combine=minimr.agg.collect_set,
        reduce=minimr.agg.collect_set if value == "pages" else count_different,
        input_format=pages,
    )


@dataclass(frozen=True, slots=True)
class LinksOfPage:
    """Map function: a page to (target, page), once for each target."""

    resolve: Resolve

    def __call__(self, page: Page) -> Iterable[tuple[bytes, bytes]]:
        name = page[0].encode()
        return [(target, name) for target in dict.fromkeys(targets(page, self.resolve))]


@dataclass(frozen=True, slots=True)
class CountLinks:
    """Map function: a page to (target, 1), for each link."""

    resolve: Resolve

    def __call__(self, page: Page) -> Iterable[tuple[bytes, int]]:
        return [(target, 1) for target in targets(page, self.resolve)]


def count_different(target: bytes, pages: Iterator[bytes]) -> Iterator[tuple[bytes, int]]:
    """Reduce function."""
    yield target, len(set(pages))


def targets(page: Page, resolve: Resolve) -> Iterator[bytes]:
    """The target of each link of a page."""
    name, content = page
    links = Links()
    try:
        links.feed(content.decode("utf-8", "replace"))
        links.close()
    except (AssertionError, ValueError):  # at <![x, and at &# with thousands of digits
        minimr.increment("map.malformed_records")
    for value in links.values:
        target = resolve(name, value)
        if target is not None:
            yield target.translate(_WRITTEN).encode("utf-8", "surrogatepass")


class Links(HTMLParser):
    """Collects the values of links."""

    def __init__(self) -> None:
        super().__init__()
        self.values: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            found = [value for name, value in attrs if name == "href" and value is not None]
            self.values += found[:1]


def raw_link(page: str, value: str) -> str:
    """The value as it is written."""
    return value.strip(string.whitespace)


@dataclass(frozen=True, slots=True)
class ResolvedLinks:
    """What a value means on a page."""

    base: str

    def __call__(self, page: str, value: str) -> str | None:
        try:
            url = urljoin(self.base + quote(page, safe="/"), raw_link(page, value))
            target = urldefrag(url)[0]
            return target if urlsplit(target).scheme in ("http", "https") else None
        except ValueError:  # such as a host in brackets that is no address
            return None
