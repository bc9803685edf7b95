"""Reading for an audit: right bytes, each once, in constant memory, past the page cache or through it."""

import hashlib
import os
import resource
from pathlib import Path
from typing import Any

import pytest

from cairn.audit import reading
from cairn.audit.reading import Place, Reader


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, reading.BLOCK + 1, reading.DIRECT_BLOCK + 513])
def test_the_digest_is_that_of_the_bytes_whether_they_are_in_memory_or_not(
    tmp_path: Path, size: int, cached: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "LARGE", 1)
    data = os.urandom(size)
    path = tmp_path / "file"
    path.write_bytes(data)
    if not cached:
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    reader = Reader(read_bytes=True)
    reader.look([Place(str(path))])
    assert reader.seen[Place(str(path))].sha256 == hashlib.sha256(data).hexdigest()
    assert reader.seen[Place(str(path))].size == size


def test_a_file_with_two_names_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "one").write_bytes(b"bytes")
    os.link(tmp_path / "one", tmp_path / "other")
    read: list[object] = []
    digest = Reader._digest

    def counted(self: Reader, *given: Any) -> Any:
        read.append(given)
        return digest(self, *given)

    monkeypatch.setattr(Reader, "_digest", counted)
    monkeypatch.setenv("CAIRN_WORKERS", "1")
    reader = Reader(read_bytes=True)
    reader.look([Place(str(tmp_path / "one"))])
    reader.look([Place(str(tmp_path / "other"))])
    assert len(read) == 1
    assert reader.seen[Place(str(tmp_path / "other"))] == reader.seen[Place(str(tmp_path / "one"))]


def test_large_files_take_no_more_memory_than_small_ones(tmp_path: Path) -> None:
    places = []
    for index in range(4):
        with open(tmp_path / str(index), "wb") as file:
            file.truncate(256 << 20)
        places.append(Place(str(tmp_path / str(index))))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    Reader(read_bytes=True).look(places)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10  # KiB


def test_what_cannot_be_read_is_told_and_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "sound").write_bytes(b"bytes")
    nowhere, odd = Place(str(tmp_path / "nowhere")), Place("nosuch://bucket/object")
    reader = Reader(read_bytes=True)
    reader.look([nowhere, odd, Place(str(tmp_path / "sound"))])
    assert reader.seen[nowhere].size is None
    assert "nosuch" in reader.seen[odd].error
    assert reader.seen[Place(str(tmp_path / "sound"))].size == 5


def test_a_version_that_its_store_no_longer_has_is_told_with_the_reason() -> None:
    place = Place("memory://bucket/object", "7")
    reader = Reader(read_bytes=True)
    reader.look([place])
    assert reader.seen[place].sha256 is None
    assert "version 7 cannot be read" in reader.seen[place].error
