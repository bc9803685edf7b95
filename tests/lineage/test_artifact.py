"""Digests, and files that appear whole or not at all."""

import hashlib
import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cairn.errors import ArtifactError
from cairn.lineage.artifact import canonical, check_place, digest_of, move_into_place, read_artifact, written_aside


def test_a_directory_is_named_by_the_sorted_listing_of_its_files(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "two").write_bytes(b"22")
    (tmp_path / "a").write_bytes(b"1")
    lines = [
        {"path": "a", "sha256": hashlib.sha256(b"1").hexdigest(), "size": 1},
        {"path": "b/two", "sha256": hashlib.sha256(b"22").hexdigest(), "size": 2},
    ]
    listing = b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in lines)
    assert read_artifact(tmp_path).digest == hashlib.sha256(listing).hexdigest()


def test_a_file_is_named_by_its_own_sha256(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * 100)
    artifact = read_artifact(tmp_path / "f")
    assert artifact.digest == hashlib.sha256(b"x" * 100).hexdigest() == digest_of(tmp_path / "f")
    assert artifact.members[0].md5 == hashlib.md5(b"x" * 100).hexdigest()


def test_names_and_bytes_decide_the_digest_and_nothing_else_does(tmp_path: Path) -> None:
    for folder in ("one", "two", "renamed", "changed"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / ("g" if folder == "renamed" else "f")).write_bytes(b"!" if folder == "changed" else b"?")
    (tmp_path / "two" / "f").chmod(0o600)
    digests = {folder: digest_of(tmp_path / folder) for folder in ("one", "two", "renamed", "changed")}
    assert digests["one"] == digests["two"]
    assert len(set(digests.values())) == 3


def test_a_link_has_no_place_in_an_artifact(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "link").symlink_to("/etc/hostname")
    with pytest.raises(ArtifactError, match="no links"):
        read_artifact(tmp_path / "a")
    with pytest.raises(ArtifactError, match="is a link"):
        read_artifact(tmp_path / "a" / "link")


@pytest.mark.parametrize("name", [b"a\\b", b"caf\xe9"])
def test_a_name_that_no_pin_can_have_is_refused_before_anything_is_kept(tmp_path: Path, name: bytes) -> None:
    folder = tmp_path / "tree" / "sub"
    folder.mkdir(parents=True)
    Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(b"stone")
    with pytest.raises(ArtifactError, match=r"sub: '.*': holds a backslash, or is not UTF-8: give it another name"):
        read_artifact(tmp_path / "tree")


def test_a_file_that_failed_half_way_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"old")
    with pytest.raises(RuntimeError), written_aside(tmp_path / "f") as aside:
        aside.write_bytes(b"half")
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
    assert (tmp_path / "f").read_bytes() == b"old"


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (".", "is a folder: name a file"),
        ("folder", "is a folder: name a file"),
        ("file/inside", "file: (Not a directory|File exists)"),
        ("/proc/nowhere.html", "(No such file or directory|Permission denied)"),
        ("/proc/no/such/folder.html", "(No such file or directory|Permission denied)"),
    ],
)
def test_a_file_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with (
        pytest.raises(ArtifactError, match=f"^{re.escape(place)}: cannot be written: .*{said}"),
        written_aside(Path(place)) as aside,
    ):
        aside.write_bytes(b"lost")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]


def test_what_another_file_could_not_do_is_not_said_of_the_file_that_is_written(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="other"), written_aside(tmp_path / "f"):
        (tmp_path / "other").read_bytes()


def test_a_place_is_tried_before_the_work_and_nothing_is_left_there(tmp_path: Path) -> None:
    check_place(tmp_path / "deep" / "er" / "final", tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ArtifactError, match="is on another file system than"):
        check_place(Path("/proc/final"), tmp_path)


def test_a_directory_is_replaced_whole(tmp_path: Path) -> None:
    for name, files in (("final", ["old", "gone"]), ("staged", ["new"])):
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).touch()
    move_into_place(tmp_path / "staged", tmp_path / "final", tmp_path / "trash")
    assert [path.name for path in (tmp_path / "final").iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["final"]


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.booleans() | st.none()))
def test_canonical_json_does_not_depend_on_the_order_of_keys(value: dict[str, object]) -> None:
    backwards = dict(reversed(value.items()))
    assert canonical(value) == canonical(backwards)
    assert json.loads(canonical(value)) == value


def test_canonical_json_refuses_numbers_that_json_does_not_have() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical({"loss": float("nan")})
