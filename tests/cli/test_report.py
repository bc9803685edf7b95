"""`cairn report`: a copy of the page, with the times that the artifact may not hold."""

from pathlib import Path

import pytest

from tests.cli.conftest import Cairn
from tests.pipelines.project import Project


def test_the_copy_has_the_times_and_the_artifact_stays(cairn: Cairn, copy: Project) -> None:
    artifact = (copy.root / "artifacts" / "report" / "report.html").read_text()
    said = cairn("report", at=copy.root)
    assert (said.code, said.out) == (0, ".cairn/report.html\n")
    page = (copy.root / ".cairn" / "report.html").read_text()
    assert "tokens per second" in page
    assert "tokens per second" not in artifact
    assert (copy.root / "artifacts" / "report" / "report.html").read_text() == artifact


@pytest.mark.parametrize("target", ["artifacts/report/report.html", "artifacts/model/page.html", "sources.lock.json"])
def test_a_copy_is_not_written_into_an_artifact(cairn: Cairn, copy: Project, target: str) -> None:
    before = copy.digests()
    said = cairn("report", "--output", str(copy.root / target), at=copy.root)
    assert said.code == 2
    assert said.err.endswith(" is an artifact and stays as it was made: write elsewhere\n")
    assert copy.digests() == before


def test_it_is_opened_where_it_is(cairn: Cairn, copy: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def open_once(url: str) -> bool:
        opened.append(url)
        return len(opened) == 1

    monkeypatch.setattr("webbrowser.open", open_once)
    assert cairn("report", "--open", "--output", "page.html", at=copy.root).err == ""
    assert opened == [(copy.root / "page.html").as_uri()]
    said = cairn("report", "--open", "--output", "page.html", at=copy.root)
    assert said.err == "no browser could be opened: open page.html by hand\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "artifacts/report/report.html: no such file: `cairn run` makes it"),
        (b"\xff\xfe", "artifacts/report/report.html: is damaged: `cairn run` makes it again"),
        (b"<html>", "report.html: is not a report of the form"),
    ],
)
def test_what_is_no_report_is_told(cairn: Cairn, tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "artifacts" / "report" / "report.html"
    path.parent.mkdir(parents=True)
    if content is not None:
        path.write_bytes(content)
    said = cairn("report", at=tmp_path)
    assert said.code == 2
    assert said.err.startswith(f"error: {message}")
    assert not (tmp_path / ".cairn").exists()
