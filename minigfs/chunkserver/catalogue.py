"""The names of the files whose chunks are here, as the masters told them, for ``rescue``.

A small database beside the chunks (``catalogue.sqlite``): safe against crashes, of bounded memory,
and readable without any server. It is a convenience of the masters, never the truth: nothing else
reads it, and one that is lost or damaged is filled again by the masters' next pass.
"""

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from minigfs.ids import FileId
from minigfs.master.heartbeat_messages import CatalogueBatch

__all__ = ["CATALOGUE", "Catalogue", "CatalogueRow", "read_catalogue"]

logger = logging.getLogger(__name__)

CATALOGUE = "catalogue.sqlite"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS files (
    file_id INTEGER PRIMARY KEY, path TEXT NOT NULL, size_bytes INTEGER NOT NULL,
    chunk_count INTEGER NOT NULL, digest TEXT NOT NULL, modified_ms INTEGER NOT NULL,
    stamp INTEGER NOT NULL, chunk_runs TEXT NOT NULL
) WITHOUT ROWID
"""
_KEEP = "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_FORGET = "DELETE FROM files WHERE stamp < ?"
_READ = """SELECT file_id, path, size_bytes, chunk_count, digest, modified_ms, stamp, chunk_runs
FROM files"""


@dataclass(frozen=True, slots=True)
class CatalogueRow:
    file_id: FileId
    path: str
    size_bytes: int
    chunk_count: int
    digest: str
    modified_ms: int
    stamp: int  # of two rows of one file, the one with the higher stamp is the newer
    chunk_runs: str  # JSON: [[first handle, how many], ...], as ``CataloguedFile`` has them

    @property
    def handles(self) -> list[int]:
        """Of its chunks, in order; empty if they were not told."""
        runs = msgspec.json.decode(self.chunk_runs, type=list[tuple[int, int]])
        return [first + i for first, count in runs for i in range(count)]


class Catalogue:
    """Belongs to the thread that calls ``store``; opened when it is first used."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / CATALOGUE
        self._database: sqlite3.Connection | None = None
        self.stored_stamp = 0  # of the last batch that was stored since this process began

    def store(self, batch: CatalogueBatch) -> None:
        """Keep what a batch says. Trouble costs the batch, which will come again."""
        rows = (
            (
                *(f.file_id, f.path, f.size_bytes, f.chunk_count, f.digest, f.modified_ms),
                *(batch.stamp, msgspec.json.encode(f.chunk_runs).decode()),
            )
            for f in batch.files
        )
        try:
            database = self._opened()
            with database:
                database.executemany(_KEEP, rows)
                if batch.forget_below:
                    database.execute(_FORGET, (batch.forget_below,))
        except sqlite3.OperationalError as error:  # a full disk, say
            logger.warning("cannot keep the names of files in %s: %s", self._path, error)
        except (sqlite3.DatabaseError, UnicodeEncodeError) as error:
            logger.warning("%s is damaged (%s) and made anew", self._path, error)
            self.close()
            self._path.unlink(missing_ok=True)
            self.stored_stamp = 0
        else:
            self.stored_stamp = batch.stamp

    def close(self) -> None:
        if self._database is not None:
            with suppress(sqlite3.Error):
                self._database.close()
            self._database = None

    def _opened(self) -> sqlite3.Connection:
        if self._database is None:
            self._database = sqlite3.connect(self._path, check_same_thread=False)
            self._path.chmod(0o600)
            # A crash of the machine may lose the last batches, which the next pass tells again.
            self._database.execute("PRAGMA journal_mode = TRUNCATE")
            self._database.execute("PRAGMA synchronous = NORMAL")
            with self._database:
                self._database.execute(_SCHEMA)
        return self._database


def read_catalogue(path: Path) -> Iterator[CatalogueRow]:
    """The rows of a catalogue, as far as they can be read; nothing is written.

    Raises ``sqlite3.DatabaseError`` where it is damaged.
    """
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
        for row in database.execute(_READ):
            yield CatalogueRow(*row)
