"""Tables, parquet and arrow: a file on disk to the bytes of one text after another, a bounded batch in memory at once.

Neither is trusted: what a page or a buffer unpacks to is known before it is unpacked, and no column is decoded as text
here.
"""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow
import pyarrow.compute
import pyarrow.ipc
import pyarrow.parquet

from cairn.errors import SourceError, one_line
from components.ingest.records import as_said, choose, steps
from components.ingest.unpacking import PIECE, Budget
from components.snapshot.lock import LockedSource

BATCH = 8_000_000  # bytes of parquet rows in memory at once, where one row is not larger
DICTIONARIES = 256_000_000  # bytes of a batch whose rows are all the largest value that a dictionary may hold
ARROW_FILE = b"ARROW1\0\0"
END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"
_TEXT = {
    pyarrow.string(): pyarrow.binary(),
    pyarrow.large_string(): pyarrow.large_binary(),
    pyarrow.string_view(): pyarrow.binary_view(),
}


@dataclass(frozen=True)
class Row:
    """The text of one row, not decoded."""

    number: int
    """From 1."""
    data: Any
    """A buffer of bytes."""
    said: dict[str, str]
    """What else is kept of it."""


def parquet_rows(copy: BinaryIO, source: LockedSource, budget: Budget) -> Iterator[Row]:
    """The rows of a parquet file. Raises SourceError when it is damaged, has no such text, or says that a column
    unpacks to more than the budget allows."""
    uri = budget.uri
    try:
        # Buffered, else the whole of a row group would be in memory, and some files are one row group.
        file = pyarrow.parquet.ParquetFile(copy, buffer_size=PIECE)
        table = _Table(source, file.schema_arrow, uri)
        rows = _rows(file.metadata, budget)
        yield from table.rows(file.iter_batches(rows, columns=table.wanted()))
    except (pyarrow.ArrowException, OSError) as error:
        raise SourceError(f"{uri}: is not a whole parquet file: {one_line(error)}") from None


def arrow_rows(copy: BinaryIO, source: LockedSource, budget: Budget) -> Iterator[Row]:
    """The rows of an arrow file, or of an arrow stream. Raises SourceError when it is damaged or has no such text."""
    uri = budget.uri
    try:
        # Mapped: what is not compressed is never copied.
        mapped = mmap.mmap(copy.fileno(), 0, access=mmap.ACCESS_READ)
        stream = pyarrow.py_buffer(mapped)
        if mapped[:8] == ARROW_FILE:
            # A file is a stream between two marks, with a table of contents that nobody needs who reads it once.
            stream = stream[len(ARROW_FILE) :]
        if mapped[-6:] != ARROW_FILE[:6] if mapped[:8] == ARROW_FILE else mapped[-8:] != END_OF_STREAM:
            raise SourceError(f"{uri}: is cut short: an arrow file or stream has a mark at its end")
        reader = pyarrow.ipc.open_stream(stream)
        yield from _Table(source, reader.schema, uri).rows(reader)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise SourceError(f"{uri}: is not a whole arrow file: {one_line(error)}") from None


class _Table:
    """The columns of one file that are wanted."""

    def __init__(self, source: LockedSource, schema: Any, uri: str) -> None:
        self._source, self._schema, self._uri = source, schema, uri
        self._text = self._found(source.text_field, "text_field")
        said = {} if source.fields is None else source.fields.paths()
        self._said = {name: self._found(path, "fields") for name, path in said.items()}
        kind = self._kind(self._text)
        kind = kind.value_type if pyarrow.types.is_dictionary(kind) else kind
        if kind not in _TEXT:
            raise SourceError(f"{uri}: column {source.text_field!r} is {kind}, not text")

    def wanted(self) -> list[str]:
        """Their names, as parquet has them."""
        return [".".join(path) for path in (self._text, *self._said.values())]

    def rows(self, batches: Any) -> Iterator[Row]:
        """Every row of every batch."""
        number = 0
        for batch in batches:
            texts = _Texts(_column(batch, self._text))
            said = {name: _column(batch, path) for name, path in self._said.items()}
            for index in range(batch.num_rows):
                number += 1
                where = f"{self._uri}: row {number}"
                data = texts.at(index)
                if data is None:
                    raise SourceError(f"{where}: column {self._source.text_field!r} is null, not text")
                yield Row(number, data, self._as_said(said, index, where) if said else {})

    def _as_said(self, columns: dict[str, Any], index: int, where: str) -> dict[str, str]:
        kept = {}
        for name, column in columns.items():
            try:
                value = column[index].as_py()
            except UnicodeDecodeError as error:
                path = ".".join(self._said[name])
                raise SourceError(f"{where}: column {path!r} is not UTF-8 ({error.reason})") from None
            if value is not None:
                kept[name] = as_said(value, ".".join(self._said[name]), where)
        return kept

    def _found(self, path: str, key: str) -> list[str]:
        """The keys of a column. Raises SourceError when there is none."""
        fields, found = self._schema, steps(path, self._schema.names)
        for depth, name in enumerate(found):
            names = fields.names if isinstance(fields, pyarrow.Schema) else [one.name for one in fields.fields]
            if names.count(name) > 1:
                raise SourceError(f"{self._uri}: has {names.count(name)} columns {name!r}: give each its own name")
            if name not in names:
                had = f"{'.'.join(found[:depth])!r} has" if depth else "it has"
                raise SourceError(f"{self._uri}: has no column {path!r}; {choose(had, names, self._source, key)}")
            fields = fields.field(name).type
            if depth < len(found) - 1 and not pyarrow.types.is_struct(fields):
                raise SourceError(f"{self._uri}: column {'.'.join(found[: depth + 1])!r} is {fields}: it has no fields")
        return found

    def _kind(self, path: list[str]) -> Any:
        kind = self._schema.field(path[0]).type
        for name in path[1:]:
            kind = kind.field(name).type
        return kind


class _Texts:
    """A column of text as bytes: a text column may hold anything, and is decoded one value at a time by who knows what
    to do when it cannot be."""

    def __init__(self, column: Any) -> None:
        self._indices = None
        if pyarrow.types.is_dictionary(column.type):
            # Never made one value for each row: a row of a long value costs a few bits on disk.
            column.indices.validate(full=True)
            self._indices, column = column.indices, column.dictionary
        self._values = column.view(_TEXT[column.type])
        self._values.validate(full=True)  # of the places of values; what is read outside of the buffers would crash

    def at(self, index: int) -> Any:
        """The buffer of one value, or None."""
        if self._indices is not None:
            place = self._indices[index].as_py()
            if place is None:
                return None
            index = place
        return self._values[index].as_buffer()


def _column(batch: Any, path: list[str]) -> Any:
    column = batch.column(path[0])
    for name in path[1:]:
        # Not `field`: that has no regard for the rows where the struct itself is null.
        column = pyarrow.compute.struct_field(column, [name])
    return column


def _rows(metadata: Any, budget: Budget) -> int:
    """How many rows of a parquet file make a batch. Raises SourceError as `Budget.check_unpacked` does."""
    largest = 0.0
    for group in range(metadata.num_row_groups):
        for index in range(metadata.num_columns):
            column = metadata.row_group(group).column(index)
            packed, plain = max(1, column.total_compressed_size), column.total_uncompressed_size
            budget.check_unpacked(packed, plain)
            if column.dictionary_page_offset is not None:
                # A row may be any value of the dictionary, and costs a few bits; its page is four times as well packed
                # as the rest at most, as a guess.
                page = max(0, column.data_page_offset - column.dictionary_page_offset)
                largest = max(largest, min(plain, 4.0 * page * plain / packed))
    size: int = sum(metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups))
    rows: int = metadata.num_rows
    return max(1, min(1024, BATCH * rows // max(1, size), int(DICTIONARIES // max(1.0, largest))))
