"""Streams: lines of bounded size, and compression that is undone without trusting it."""

import io
import os

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from cairn.errors import SourceError
from components.ingest import stream
from components.ingest.stream import Line, lines, unpacked, whole
from tests.components.corpus import packed

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


@pytest.mark.parametrize("compression", [".gz", ".zst"])
@given(st.lists(st.binary(max_size=3000), min_size=1, max_size=4))
def test_what_was_packed_in_several_parts_comes_back(compression: str, parts: list[bytes]) -> None:
    data = io.BufferedReader(io.BytesIO(b"".join(packed(part, compression) for part in parts)))
    with unpacked(data, compression, "a") as plain:
        assert plain.read() == b"".join(parts)


@pytest.mark.parametrize("compression", [".gz", ".zst"])
@pytest.mark.parametrize("size", [0, 10, 5_000])
def test_every_cut_is_told(compression: str, size: int) -> None:
    data = packed(os.urandom(size), compression)
    for end in (0, len(data) // 2, len(data) - 1):
        raw = io.BufferedReader(io.BytesIO(data[:end]))
        with (
            pytest.raises(SourceError, match=r"^a: is cut short: the \.(gz|zst) stream ends too early$"),
            unpacked(raw, compression, "a") as plain,
        ):
            plain.read()


@pytest.mark.parametrize("compression", [".gz", ".zst"])
@pytest.mark.parametrize("data", [b"plain text", b"pl", packed(b"a", ".gz") + b"tail", packed(b"a", ".zst") + b"tail"])
def test_what_is_not_packed_is_told(compression: str, data: bytes) -> None:
    raw = io.BufferedReader(io.BytesIO(data))
    with (
        pytest.raises(SourceError, match=r"^a: cannot be unpacked as \.(gz|zst): .+$"),
        unpacked(raw, compression, "a") as plain,
    ):
        plain.read()


def test_a_frame_that_asks_for_too_much_memory_is_refused() -> None:
    huge = zstandard.ZstdCompressor(compression_params=zstandard.ZstdCompressionParameters(window_log=30))
    written = io.BytesIO()
    with huge.stream_writer(written, closefd=False) as writer:
        writer.write(b"a little text")
    raw = io.BufferedReader(io.BytesIO(written.getvalue()))
    with pytest.raises(SourceError, match="Frame requires too much memory"), unpacked(raw, ".zst", "a") as plain:
        plain.read()
