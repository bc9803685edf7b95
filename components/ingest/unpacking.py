"""Compression undone without trusting it: what an object unpacks to is capped in bytes, ratio, memory and time.

Every decoder here is asked for a few megabytes at a time, whatever a frame claims to hold.
"""

import gzip
import io
import lzma
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import BinaryIO, cast

import zstandard

from cairn.errors import SourceError, one_line
from components.ingest.recipe import Limits

PIECE = 1 << 20
RATIO_FROM = 64_000_000  # unpacked bytes; what is smaller hurts nobody, and a short repetitive text packs well
# A zstd block is at least 4 bytes long and holds at most 128 KiB: fed this much at a time, the decoder hands back no
# more than 32 MiB. (`zstandard.stream_reader` has a bound of its own, but takes a truncated frame for a whole one.)
_ZSTD_FEED = 1 << 10
_XZ_FEED = 1 << 16
_XZ_MAGIC = b"\xfd7zXZ\0"
_TOO_MUCH_MEMORY = ("requires too much memory", "Memory usage limit exceeded")  # as zstd and liblzma say it


@dataclass
class Budget:
    """What one object may cost. Raises SourceError, naming the object, the limit and its key, once it is spent."""

    uri: str
    limits: Limits
    began: float = field(default_factory=time.process_time)
    """CPU seconds of this process: what waits for a slow network spends nothing."""

    def check_time(self) -> None:
        """Raises when the object has taken too long."""
        most = self.limits.max_seconds
        if most is not None and time.process_time() - self.began > most:
            raise SourceError(
                f"{self.uri}: takes more than {most:g} s of CPU time: split it, or raise ingest.limits.max_seconds"
            )

    def check_unpacked(self, packed: int, plain: int) -> None:
        """Raises when `packed` bytes have become too many, or too large a multiple."""
        most, ratio = self.limits.max_unpacked_bytes, self.limits.max_ratio
        if most is not None and plain > most:
            raise SourceError(
                f"{self.uri}: unpacks to more than {most:,} bytes: split it, or raise ingest.limits.max_unpacked_bytes"
            )
        if ratio is not None and plain > RATIO_FROM and plain > ratio * packed:
            raise SourceError(
                f"{self.uri}: unpacks to more than {ratio:g} times its size (a decompression bomb?): take it out, or "
                "raise ingest.limits.max_ratio"
            )
        self.check_time()

    def refuse_memory(self) -> SourceError:
        """The error of an object whose decoder asks for more memory than it may have."""
        return SourceError(
            f"{self.uri}: cannot be unpacked within {self.limits.max_window_bytes:,} bytes of memory: pack it with a "
            "smaller window, or raise ingest.limits.max_window_bytes"
        )


@contextmanager
def unpacked(stream: BinaryIO, compression: str, budget: Budget) -> Iterator[BinaryIO]:
    """The stream without its compression. Raises SourceError, also while it is read, when it is cut, damaged, or
    unpacks to more than the budget allows."""
    if not compression:
        yield stream
        return
    try:
        if not cast(io.BufferedReader, stream).peek(1):
            raise EOFError
        yield io.BufferedReader(_Capped(stream, compression, budget), PIECE)
    except EOFError:
        raise SourceError(f"{budget.uri}: is cut short: the {compression} stream ends too early") from None
    except (gzip.BadGzipFile, zlib.error, lzma.LZMAError, zstandard.ZstdError) as error:
        if any(words in str(error) for words in _TOO_MUCH_MEMORY):
            raise budget.refuse_memory() from None
        raise SourceError(f"{budget.uri}: cannot be unpacked as {compression}: {one_line(error)}") from None


def unzstd(stream: BinaryIO) -> io.BufferedReader:
    """The stream unpacked. Reading it raises EOFError when it ends within a frame, ZstdError when it is damaged."""
    return io.BufferedReader(_Zstd(stream), PIECE)


class _Counted(io.RawIOBase):
    """Counts what is read through it."""

    def __init__(self, source: BinaryIO) -> None:
        self._source, self.count = source, 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(size)
        self.count += len(data)
        return data


class _Capped(io.RawIOBase):
    """Unpacks within a budget."""

    def __init__(self, source: BinaryIO, compression: str, budget: Budget) -> None:
        self._packed, self._budget, self._count = _Counted(source), budget, 0
        packed = cast(BinaryIO, self._packed)
        window = budget.limits.max_window_bytes
        if compression == ".gz":
            self._plain: io.BufferedIOBase | io.RawIOBase = gzip.GzipFile(fileobj=packed)
        else:
            self._plain = _Zstd(packed, window) if compression == ".zst" else _Xz(packed, window)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        size = cast(int, self._plain.readinto(buffer))
        self._count += size
        self._budget.check_unpacked(self._packed.count, self._count)
        return size


class _Zstd(io.RawIOBase):
    """Unpacks zstd frames, one after another, and tells a truncated one."""

    def __init__(self, source: BinaryIO, window: int = 0) -> None:
        self._source = source
        self._decoder = zstandard.ZstdDecompressor(max_window_size=window)
        self._frame = self._decoder.decompressobj()
        self._begun = False
        self._packed = b""
        self._plain = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._plain:
            packed = self._packed or self._source.read(_ZSTD_FEED)
            if not packed:
                if self._begun:
                    raise EOFError
                return 0
            self._plain, self._packed, self._begun = memoryview(self._frame.decompress(packed)), b"", True
            if self._frame.eof:
                self._packed, self._begun = self._frame.unused_data, False
                self._frame = self._decoder.decompressobj()
        size = min(len(buffer), len(self._plain))
        buffer[:size] = self._plain[:size]
        self._plain = self._plain[size:]
        return size


class _Xz(io.RawIOBase):
    """Unpacks xz streams, one after another. (`lzma.LZMAFile` does the same without a limit of memory.)"""

    def __init__(self, source: BinaryIO, memory: int) -> None:
        self._source, self._memory = source, memory
        self._decoder: lzma.LZMADecompressor | None = None
        self._packed = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while True:
            if not self._packed and (self._decoder is None or self._decoder.needs_input):
                self._packed = self._source.read(_XZ_FEED)
                if not self._packed:
                    if self._decoder is not None:
                        raise EOFError
                    return 0
            if self._decoder is None:
                self._packed = self._packed.lstrip(b"\0")  # padding between streams
                if not self._packed:
                    continue
                if self._packed[: len(_XZ_MAGIC)] != _XZ_MAGIC[: len(self._packed)]:
                    raise lzma.LZMAError("no xz stream")  # liblzma tells only when it has a whole header
                self._decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=self._memory)
            data = self._decoder.decompress(self._packed, max_length=len(buffer))
            self._packed = b""
            if self._decoder.eof:
                self._packed, self._decoder = self._decoder.unused_data, None
            if data:
                buffer[: len(data)] = data
                return len(data)
