"""`cairn snapshot`: what a new look at the sources would change, and the look itself."""

import json
from pathlib import Path

from cairn.lineage.artifact import digest_of
from tests.cli.conftest import Cairn
from tests.pipelines.project import Project


def test_a_dry_run_tells_what_would_change_and_writes_nothing(cairn: Cairn, copy: Project) -> None:
    text = copy.root / "text"
    said = cairn("snapshot", "--dry-run", at=copy.root)
    assert said.out == "sources.lock.json: 0 added, 0 removed, 0 changed, 120 as they were; nothing was written\n"
    lock = (copy.root / "sources.lock.json").read_bytes()
    (text / "new.txt").write_text("A new stone.\n")
    old = (text / "0003.txt").read_text()
    (text / "0003.txt").write_text(old + "one line more\n")
    # The same size: only reading it tells.
    (text / "0004.txt").write_text((text / "0004.txt").read_text().swapcase())
    gone = (text / "0005.txt").stat().st_size
    (text / "0005.txt").unlink()
    said = cairn("snapshot", "--dry-run", at=copy.root)
    same = (text / "0004.txt").stat().st_size
    assert said.out.splitlines() == [
        "+ text/new.txt (13 bytes)",
        f"- text/0005.txt ({gone:,} bytes)",
        f"~ text/0003.txt ({len(old):,} bytes → {len(old) + 14:,} bytes)",
        f"~ text/0004.txt ({same:,} bytes → {same:,} bytes)",
        "sources.lock.json: 1 added, 1 removed, 2 changed, 117 as they were; nothing was written",
    ]
    assert (copy.root / "sources.lock.json").read_bytes() == lock
    told = json.loads(cairn("snapshot", "--dry-run", "--json", at=copy.root).out)
    assert [change["kind"] for change in told["changes"]] == ["changed", "changed", "removed", "added"]
    assert (told["unchanged"], told["recipe_changed"]) == (117, False)


def test_a_dry_run_sees_that_the_recipe_changed_too(cairn: Cairn, built: Project) -> None:
    said = cairn("snapshot", "snapshot.sources.0.licence=CC-BY-4.0", "--dry-run", at=built.root)
    assert said.out.endswith("the snapshot section of the recipe has changed too\n")


def test_a_dry_run_names_a_source_that_is_gone(cairn: Cairn, built: Project) -> None:
    said = cairn("snapshot", "snapshot.sources.0.uri=txt", "--dry-run", at=built.root)
    assert said.code == 2
    assert said.err == "error: snapshot.sources[0].uri: txt: no such file, folder or object\n"


def test_before_there_is_a_lock_file_everything_is_new(cairn: Cairn, copy: Project) -> None:
    (copy.root / "sources.lock.json").unlink()
    said = cairn("snapshot", "--dry-run", at=copy.root)
    assert "+ and 100 more" in said.out
    assert said.out.endswith("120 added, 0 removed, 0 changed, 0 as they were; nothing was written\n")


def test_a_snapshot_takes_the_sources_as_they_are_now(copy: Project) -> None:
    (copy.root / "text" / "new.txt").write_text("A new stone.\n")
    printed = copy.run("cairn", "snapshot", "--json")
    assert json.loads(printed[printed.index("{") :]) == {"sources": digest_of(copy.root / "sources.lock.json")}
    assert "text/new.txt" in (copy.root / "sources.lock.json").read_text()


def test_a_lock_file_that_is_none_is_told(cairn: Cairn, copy: Project, tmp_path: Path) -> None:
    (copy.root / "sources.lock.json").write_text("[]")
    said = cairn("snapshot", "--dry-run", at=copy.root)
    assert said.code == 2
    assert said.err.startswith("error: sources.lock.json: not a lock file of sources: ")
