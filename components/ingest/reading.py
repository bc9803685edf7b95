"""From an object to the raw texts in it. What cannot be a document is refused with a reason, never passed over."""

import codecs
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from cairn.errors import SourceError, one_line
from cairn.lineage.artifact import Member
from cairn.lineage.store import Store
from components.ingest import python_source
from components.ingest.recipe import Ingest
from components.ingest.stream import PIECE, lines, opened, unpacked, whole
from components.snapshot.formats import format_of
from components.snapshot.lock import LockedObject, LockedSource

PARQUET_BATCH = 8_000_000  # bytes of parquet rows in memory at once, where one row is not larger
_KINDS = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}


@dataclass(frozen=True)
class Text:
    """A raw text: decoded, and otherwise as it was in the object."""

    text: str


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
        with opened(locked, member, self.store) as packed:
            if taken.name == "parquet":
                yield from self._parquet(packed, locked.uri)
                return
            with unpacked(packed, taken.compression, locked.uri) as stream:
                if taken.name == "jsonl":
                    yield from self._jsonl(stream, locked.uri)
                else:
                    yield from self._whole(stream, locked.uri, python=taken.name == "python")

    def _whole(self, stream: BinaryIO, uri: str, python: bool) -> Iterator[Text | Refused]:
        data, size = whole(stream, self.section.max_document_bytes)
        if data is None:
            yield self._too_large(uri, size)
        elif python:
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
            yield Text(self._field(record, where))

    def _field(self, record: Any, where: str) -> str:
        field = self.source.text_field
        if not isinstance(record, dict):
            raise SourceError(f"{where}: is {_KINDS.get(type(record), 'null')}, not an object with a field {field!r}")
        if field not in record:
            raise SourceError(f"{where}: has no field {field!r}; {self._choose(record)}")
        text = record[field]
        if not isinstance(text, str):
            raise SourceError(f"{where}: field {field!r} is {_KINDS.get(type(text), 'null')}, not text")
        return text

    def _parquet(self, stream: BinaryIO, uri: str) -> Iterator[Text | Refused]:
        # Loading pyarrow takes longer than reading a small corpus that has no parquet in it.
        import pyarrow
        import pyarrow.parquet

        field = self.source.text_field
        # Parquet is read from its end. A copy on disk is what was hashed, and is what is parsed.
        with tempfile.TemporaryFile(dir=self.scratch) as copy:
            while piece := stream.read(PIECE):
                copy.write(piece)
            try:
                # Buffered, else the whole of a row group would be in memory, and some files are one row group.
                file = pyarrow.parquet.ParquetFile(copy, buffer_size=PIECE)
                if field not in file.schema_arrow.names:
                    raise SourceError(f"{uri}: has no column {field!r}; {self._choose(file.schema_arrow.names)}")
                kind = file.schema_arrow.field(field).type
                kind = kind.value_type if pyarrow.types.is_dictionary(kind) else kind
                if kind not in (pyarrow.string(), pyarrow.large_string(), pyarrow.string_view()):
                    raise SourceError(f"{uri}: column {field!r} is {kind}, not text")
                row = 0
                for batch in file.iter_batches(_rows(file.metadata), columns=[field]):
                    # As bytes: a string column may hold anything, and is decoded here, one value at a time.
                    for value in batch.column(0).cast(kind).cast(pyarrow.large_binary()):
                        row += 1
                        yield self._value(value.as_buffer(), f"{uri}: row {row}")
            except (pyarrow.ArrowException, OSError) as error:
                raise SourceError(f"{uri}: is not a whole parquet file: {one_line(error)}") from None

    def _value(self, data: Any, where: str) -> Text | Refused:
        if data is None:
            raise SourceError(f"{where}: column {self.source.text_field!r} is null, not text")
        if data.size > self.section.max_document_bytes:
            return self._too_large(where, data.size)
        return self._decoded(data.to_pybytes(), where)

    def _choose(self, names: Any) -> str:
        shown = ", ".join(sorted(map(str, names))[:8]) or "none"
        return f"it has {shown}: set text_field of source {self.source.name!r}"

    def _decoded(self, data: bytes, where: str) -> Text | Refused:
        try:
            return Text(data.decode())
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


def _rows(metadata: Any) -> int:
    """How many rows of a parquet file make a batch."""
    size: int = sum(metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups))
    rows: int = metadata.num_rows
    return max(1, min(1024, PARQUET_BATCH * rows // max(1, size)))
