"""From an object to the raw texts in it. What cannot be a document is refused with a reason, never passed over."""

import codecs
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from cairn.errors import SourceError, one_line
from cairn.lineage.artifact import Member
from cairn.lineage.store import Store
from components.ingest import python_source
from components.ingest.html import text_of_page
from components.ingest.recipe import Ingest
from components.ingest.records import said_of, text_of
from components.ingest.stream import lines, opened, whole
from components.ingest.unpacking import PIECE, Budget, unpacked
from components.ingest.warc import NoPage, page_of, warc_records
from components.snapshot.formats import format_of
from components.snapshot.lock import LockedObject, LockedSource


@dataclass(frozen=True)
class Text:
    """A raw text: decoded, and otherwise as it was in the object."""

    text: str
    said: dict[str, str] = field(default_factory=dict)
    """What the recipe wants kept of the record that it was in."""


@dataclass(frozen=True)
class Refused:
    """A text that is no document."""

    reason: str
    size: int
    """Bytes, as far as they were read."""
    warning: str = ""
    """Told to the user when the drop may not be what they want."""


@dataclass(frozen=True)
class Reader:
    """Reads objects of one source."""

    source: LockedSource
    section: Ingest
    store: Store
    scratch: Path
    """A folder for files that live while an object is read."""

    def read(self, locked: LockedObject, member: Member | None) -> Iterator[Text | Refused]:
        """The texts of an object, in the order in which they are in it.

        Raises:
            SourceError: the object is cut short, damaged, not what its suffix says, or not what the lock says. Names
                the object, and the line or byte where known.
        """
        taken = format_of(locked.uri, self.source.read)
        if taken is None:
            raise SourceError(
                f"{locked.uri}: nothing here reads it as {self.source.read}: `cairn snapshot` looks again"
            )
        budget = Budget(locked.uri, self.section.limits)
        with (
            opened(locked, member, self.store) as packed,
            unpacked(packed, taken.compression, budget) as stream,
        ):
            for found in self._read(stream, taken.name, budget):
                budget.check_time()
                yield found

    def _read(self, stream: BinaryIO, name: str, budget: Budget) -> Iterator[Text | Refused]:
        uri = budget.uri
        if name == "warc":
            yield from self._warc(stream, uri)
        elif name == "jsonl":
            yield from self._jsonl(stream, uri)
        elif name in ("parquet", "arrow"):
            yield from self._table(stream, budget, arrow=name == "arrow")
        else:
            yield from self._whole(stream, uri, name)

    def _whole(self, stream: BinaryIO, uri: str, name: str) -> Iterator[Text | Refused]:
        data, size = whole(stream, self.section.max_document_bytes)
        if data is None:
            yield self._too_large(uri, size)
        elif name == "html":
            yield self._page(data, uri)
        elif name == "python":
            for found in python_source.texts(data, self.source.read, uri):
                if isinstance(found, str):
                    yield Text(found)
                elif isinstance(found, UnicodeDecodeError):
                    yield self._not_utf8(found, uri, 0, size)
                else:
                    yield Refused(*found)
        else:
            decoded = self._decoded(data, uri)
            # A byte order mark says that UTF-8 follows, and is no part of the text.
            yield Text(decoded.text.removeprefix("\ufeff")) if isinstance(decoded, Text) else decoded

    def _page(
        self, data: bytes, where: str, charset: str | None = None, said: dict[str, str] | None = None
    ) -> Text | Refused:
        try:
            found = text_of_page(data, charset, self.section.html)
        except UnicodeDecodeError as error:
            return self._not_utf8(error, where, 0, len(data))
        if isinstance(found, str):
            return Text(found, said or {})
        return Refused(found.reason, len(data), f"{where}: {found.told}" if found.told else "")

    def _warc(self, stream: BinaryIO, uri: str) -> Iterator[Text | Refused]:
        for record in warc_records(stream, uri):
            where = f"{uri}: record {record.number}"
            found = page_of(record, self.section.max_document_bytes)
            if found is None:
                continue
            if isinstance(found, NoPage):
                large = found.reason == "max_document_bytes"
                told = f"{where}: {found.told}" if found.told else ""
                yield self._too_large(where, record.size) if large else Refused(found.reason, record.size, told)
                continue
            paths = self.source.fields.paths() if self.source.fields else {}
            said = {
                name: record.headers[path.lower()] for name, path in paths.items() if path.lower() in record.headers
            }
            if found.html:
                yield self._page(found.data, where, found.charset, said)
            else:
                yield self._decoded(found.data, where, said)

    def _jsonl(self, stream: BinaryIO, uri: str) -> Iterator[Text | Refused]:
        for line in lines(stream, self.section.max_document_bytes):
            where = f"{uri}:{line.number}"
            if line.data is None:
                yield self._too_large(where, line.size)
                continue
            data = line.data.removeprefix(codecs.BOM_UTF8) if line.number == 1 else line.data
            if not data.strip():
                continue
            try:
                record = _parsed(data, where)
            except UnicodeDecodeError as error:
                yield self._not_utf8(error, where, line.offset + line.size - len(data), line.size)
                continue
            yield Text(text_of(record, self.source, where), said_of(record, self.source, where))

    def _table(self, stream: BinaryIO, budget: Budget, arrow: bool) -> Iterator[Text | Refused]:
        # Loading pyarrow takes longer than reading a small corpus that has no table in it.
        from components.ingest.columns import arrow_rows, parquet_rows

        read = arrow_rows if arrow else parquet_rows
        with self._on_disk(stream) as copy:
            for row in read(copy, self.source, budget):
                where = f"{budget.uri}: row {row.number}"
                if row.data.size > self.section.max_document_bytes:
                    yield self._too_large(where, row.data.size)
                else:
                    yield self._decoded(row.data.to_pybytes(), where, row.said)

    @contextmanager
    def _on_disk(self, stream: BinaryIO) -> Iterator[BinaryIO]:
        """A copy of what cannot be read from its beginning to its end: it is what was hashed, and is what is parsed."""
        with tempfile.TemporaryFile(dir=self.scratch) as copy:
            while piece := stream.read(PIECE):
                copy.write(piece)
            copy.flush()
            yield copy

    def _decoded(self, data: bytes, where: str, said: dict[str, str] | None = None) -> Text | Refused:
        try:
            return Text(data.decode(), said or {})
        except UnicodeDecodeError as error:
            return self._not_utf8(error, where, 0, len(data))

    def _not_utf8(self, error: UnicodeDecodeError, where: str, offset: int, size: int) -> Refused:
        if self.section.invalid_utf8 == "error":
            raise SourceError(
                f"{where}: byte {offset + error.start}: is not {error.encoding.upper()} ({error.reason}): convert it, "
                "or set ingest.invalid_utf8: drop"
            )
        return Refused("invalid_utf8", size)

    def _too_large(self, where: str, size: int) -> Refused:
        limit = self.section.max_document_bytes
        warning = f"{where}: a document of {size:,} bytes is dropped: ingest.max_document_bytes is {limit:,}"
        return Refused("max_document_bytes", size, warning)


def _parsed(data: bytes, where: str) -> Any:
    """A line of JSON. Raises UnicodeDecodeError when it is not UTF-8."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        text = data.decode()
        try:
            # Python's parser, 20 times slower, takes what Python's writer makes and orjson refuses: NaN, and halves of
            # surrogate pairs.
            return json.loads(text)
        except (ValueError, RecursionError):
            raise SourceError(f"{where}: is not valid JSON (cut short?): {one_line(error)}") from None
