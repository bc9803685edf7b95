"""The documents artifact: what is written is read back, and what was damaged is told."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cairn.errors import ArtifactError
from cairn.lineage.artifact import digest_of, remove
from components.ingest.documents import ShardWriter, read_shard, read_split, shards, shards_in

RECORDS = st.lists(
    st.fixed_dictionaries(
        {"text": st.text(max_size=200), "bytes": st.integers(0, 2**53), "overlap": st.floats(0, 1, width=32)}
    ),
    max_size=12,
)


def write(folder: Path, records: list[dict[str, Any]], shard_bytes: int) -> list[Path]:
    remove(folder)
    with ShardWriter(folder, shard_bytes) as shard:
        for record in records:
            shard.write(record)
    return shards_in(folder)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(RECORDS, st.integers(1, 1000))
def test_records_come_back_in_order_from_shards_of_bounded_size(
    tmp_path: Path, records: list[dict[str, Any]], shard_bytes: int
) -> None:
    written = write(tmp_path / "a", records, shard_bytes)
    read = [list(read_shard(path)) for path in written]
    assert [record for shard in read for record in shard] == records
    assert [path.name for path in written] == [f"{number:05d}.jsonl.zst" for number in range(len(written))]
    assert all(read)
    digest = digest_of(tmp_path / "a")
    write(tmp_path / "a", records, shard_bytes)
    assert digest_of(tmp_path / "a") == digest


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    """A shard of 500 records."""
    (path,) = write(tmp_path / "train", [{"number": number, "text": f"{number**9}"} for number in range(500)], 1 << 20)
    return path


@pytest.mark.parametrize("left", [0, 3, 100, -1])
def test_a_shard_that_is_cut_short_is_told_with_the_line(shard: Path, left: int) -> None:
    shard.write_bytes(shard.read_bytes()[:left])
    with pytest.raises(ArtifactError, match=rf"^{shard}: line \d+: is cut short: run the ingest stage again$"):
        list(read_shard(shard))


def test_a_damaged_shard_is_told(shard: Path, tmp_path: Path) -> None:
    shard.write_bytes(b"?" + shard.read_bytes()[1:])
    with pytest.raises(ArtifactError, match=rf"^{shard}: line 1: is damaged: .*: run the ingest stage again$"):
        list(read_shard(shard))
    with pytest.raises(ArtifactError, match=r"none\.jsonl\.zst: no such shard: run the ingest stage again$"):
        list(read_shard(tmp_path / "none.jsonl.zst"))


def test_a_folder_that_holds_no_documents_is_told(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"is not a documents artifact: run the ingest stage first"):
        shards(tmp_path, "train")
    with pytest.raises(ArtifactError, match=r"is not a documents artifact"):
        list(read_split(tmp_path, "train"))


def test_a_split_without_documents_has_no_shards(tmp_path: Path) -> None:
    write(tmp_path / "heldout", [], 100)
    (tmp_path / "ledger.json").write_text("{}")
    assert list(read_split(tmp_path, "heldout")) == []
    assert list(read_split(tmp_path, "development")) == []
