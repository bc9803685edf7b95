"""Streams: lines of bounded size, and compression that is undone without trusting it."""

import io
import lzma
import os
from collections.abc import Callable
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from cairn.errors import SourceError
from components.ingest import stream, unpacking
from components.ingest.recipe import Limits
from components.ingest.stream import Line, lines, whole
from components.ingest.unpacking import Budget, unpacked
from tests.components.corpus import packed

BUDGET = Budget("a", Limits())
DATA = st.lists(st.sampled_from([b"a", b"\n", b"\r", b"\xe2\x80\xa8", b"bcdefgh", b"\0"]), max_size=40).map(b"".join)


def by_hand(data: bytes, limit: int) -> list[Line]:
    """The lines of a text, cut with `split`."""
    expected, offset = [], 0
    for number, part in enumerate(data.split(b"\n"), 1):
        expected.append(Line(number, offset, len(part), part if len(part) <= limit else None))
        offset += len(part) + 1
    return expected if expected[-1].size else expected[:-1]


@given(DATA, st.integers(1, 12), st.integers(1, 5))
def test_lines_are_cut_at_newlines_only_and_long_ones_are_passed_over(data: bytes, limit: int, piece: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream, "PIECE", piece)
        assert list(lines(io.BytesIO(data), limit)) == by_hand(data, limit)


@given(st.binary(max_size=300), st.integers(1, 300), st.integers(1, 40))
def test_a_whole_stream_is_counted_to_its_end_and_kept_up_to_the_limit(data: bytes, limit: int, piece: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream, "PIECE", piece)
        assert whole(io.BytesIO(data), limit) == (data if len(data) <= limit else None, len(data))


@pytest.mark.parametrize("compression", [".gz", ".zst", ".xz"])
@given(st.lists(st.binary(max_size=3000), min_size=1, max_size=4))
def test_what_was_packed_in_several_parts_comes_back(compression: str, parts: list[bytes]) -> None:
    data = io.BufferedReader(io.BytesIO(b"".join(packed(part, compression) for part in parts)))
    with unpacked(data, compression, BUDGET) as plain:
        assert plain.read() == b"".join(parts)


@pytest.mark.parametrize("compression", [".gz", ".zst", ".xz"])
@pytest.mark.parametrize("size", [0, 10, 5_000])
def test_every_cut_is_told(compression: str, size: int) -> None:
    data = packed(os.urandom(size), compression)
    for end in (0, len(data) // 2, len(data) - 1):
        raw = io.BufferedReader(io.BytesIO(data[:end]))
        with (
            pytest.raises(SourceError, match=r"^a: is cut short: the \.(gz|zst|xz) stream ends too early$"),
            unpacked(raw, compression, BUDGET) as plain,
        ):
            plain.read()


@pytest.mark.parametrize("compression", [".gz", ".zst", ".xz"])
@pytest.mark.parametrize(
    "data",
    [
        b"plain text",
        b"pl",
        packed(b"a", ".gz") + b"tail",
        packed(b"a", ".zst") + b"tail",
        packed(b"a", ".xz") + b"tail",
    ],
)
def test_what_is_not_packed_is_told(compression: str, data: bytes) -> None:
    raw = io.BufferedReader(io.BytesIO(data))
    with (
        pytest.raises(SourceError, match=r"^a: cannot be unpacked as \.(gz|zst|xz): .+$"),
        unpacked(raw, compression, BUDGET) as plain,
    ):
        plain.read()


def long_window() -> bytes:
    huge = zstandard.ZstdCompressor(compression_params=zstandard.ZstdCompressionParameters(window_log=30))
    written = io.BytesIO()
    with huge.stream_writer(written, closefd=False) as writer:
        writer.write(b"a little text")
    return written.getvalue()


def large_dictionary() -> bytes:
    return lzma.compress(b"a little text", filters=[{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 27}])


@pytest.mark.parametrize(("compression", "made"), [(".zst", long_window), (".xz", large_dictionary)])
def test_what_asks_for_too_much_memory_is_refused_and_read_when_it_may(
    compression: str, made: Callable[[], bytes]
) -> None:
    data = made()
    with (
        pytest.raises(SourceError) as raised,
        unpacked(io.BufferedReader(io.BytesIO(data)), compression, BUDGET) as plain,
    ):
        plain.read()
    assert str(raised.value) == (
        "a: cannot be unpacked within 134,217,728 bytes of memory: pack it with a smaller window, or raise "
        "ingest.limits.max_window_bytes"
    )
    more = Budget("a", Limits(max_window_bytes=1 << 30))
    with unpacked(io.BufferedReader(io.BytesIO(data)), compression, more) as plain:
        assert plain.read() == b"a little text"


@pytest.mark.parametrize("compression", [".gz", ".zst", ".xz"])
@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (
            {"max_ratio": 100.0},
            "a: unpacks to more than 100 times its size (a decompression bomb?): take it out, or raise "
            "ingest.limits.max_ratio",
        ),
        (
            {"max_unpacked_bytes": 3_000_000},
            "a: unpacks to more than 3,000,000 bytes: split it, or raise ingest.limits.max_unpacked_bytes",
        ),
        ({"max_seconds": 1e-9}, "a: takes more than 1e-09 s of CPU time: split it, or raise ingest.limits.max_seconds"),
    ],
)
def test_a_bomb_is_refused_long_before_its_end(
    monkeypatch: pytest.MonkeyPatch, compression: str, limits: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr(unpacking, "RATIO_FROM", 2_000_000)
    bomb = packed(bytes(2_000_000), compression) * 500
    read = 0
    with (
        pytest.raises(SourceError) as raised,
        unpacked(io.BufferedReader(io.BytesIO(bomb)), compression, Budget("a", Limits(**limits))) as plain,
    ):
        while piece := plain.read(1 << 16):
            read += len(piece)
    assert str(raised.value) == message
    assert read < 20_000_000


def test_no_limit_is_no_limit() -> None:
    endless = Limits(max_ratio=None, max_unpacked_bytes=None, max_seconds=None)
    bomb = io.BufferedReader(io.BytesIO(packed(bytes(70_000_000), ".zst")))
    with unpacked(bomb, ".zst", Budget("a", endless)) as plain:
        assert whole(plain, 1) == (None, 70_000_000)
