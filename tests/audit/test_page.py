"""What a person and a program are told of an audit: the tree, the page, the JSON."""

import json
import re

import pytest

from cairn.audit.document import document
from cairn.audit.drawing import NARROW, WIDE, drawing
from cairn.audit.layout import Measures, layout
from cairn.audit.page import page
from cairn.audit.text import lines
from cairn.audit.verdicts import Audit, Edge, Finding, Node, Verdict
from cairn.cli.main import enter
from cairn.errors import ArtifactError
from tests.audit.attacks import audited, digest, write
from tests.components.page_reader import Page
from tests.pipelines.project import Project

HOSTILE = "<script>alert(1)</script>\x1b[31m\u202e&\"'"


def hostile() -> Audit:
    """An audit in which every name and message is an attack on who reads it."""
    bad = Finding(Verdict.TAMPERED, HOSTILE, (HOSTILE,))
    nodes = [
        Node("artifact:1", "artifact", HOSTILE, "1" * 64, [bad]),
        Node("stage:2", "stage", HOSTILE, "2" * 64, [bad]),
        Node("object:3", "object", HOSTILE, "3" * 64, [bad], source=HOSTILE),
    ]
    edges = [Edge("artifact:1", "stage:2", "made by", [bad]), Edge("stage:2", "object:3", "made from", [bad])]
    return Audit("artifact:1", {node.id: node for node in nodes}, edges, [HOSTILE])


def test_the_tree_has_each_thing_once_and_says_what_is_wrong_and_what_nobody_can_know(built: Project) -> None:
    said = [line.plain for line in lines(audited(built))]
    assert said[0].startswith("model ")
    assert sum("tokens " in line and "(above)" not in line for line in said if "─" in line) == 1
    assert any("120 objects of walks  BYTES-MATCH ×120" in line for line in said)
    assert "Nothing is wrong with what was looked at." in said
    assert "What this audit cannot know" in said


def test_a_name_cannot_steer_the_terminal() -> None:
    said = "\n".join(line.plain for line in lines(hostile()))
    assert "\x1b" not in said
    assert "\u202e" not in said
    assert "⟨U+202E⟩" in said


def test_a_name_cannot_be_anything_but_text_on_the_page() -> None:
    html = page(hostile(), HOSTILE, ["a" * 64])
    assert "<script" not in html
    assert "\x1b" not in html
    assert "\u202e" not in html
    assert {element.tag for element in Page(html).elements()} >= {"svg", "table", "li"}


def test_a_changed_folder_is_told_first_by_its_own_name_and_digest(copy: Project) -> None:
    nearest = digest(copy, "model")
    write(copy.root / "artifacts/model/config.json", b"{}")
    own, found = digest(copy, "model"), audited(copy)
    said = [line.plain for line in lines(found)]
    assert said[0].startswith(f"{copy.root}/artifacts/model ({own[:12]}) is not what was attested. ")
    assert f"nearest to it, model {nearest[:12]}" in said[0]
    read = Page(page(found, "store", []))
    assert read.root.all("title")[0].text == f"Audit of {copy.root}/artifacts/model {own[:12]}"
    asked = dict(row[:2] for row in read.table("What was asked")[1:])
    assert asked["path"] == f"{copy.root}/artifacts/model"
    assert (asked["sha256 of what lies there"], asked["nearest artifact"]) == (own, nearest)
    assert document(found, "store", [])["asked"] == {"said": f"{copy.root}/artifacts/model", "digest": own}


def test_places_in_the_store_are_short_for_people_and_whole_in_json() -> None:
    found = hostile()
    where = f"attestations/{'a' * 64}/{'b' * 64}.json: not believed"
    found.nodes["stage:2"].findings = [Finding(Verdict.TAMPERED, where)]
    short = f"attestations/{'a' * 12}/{'b' * 12}.json: not believed"
    assert short in "\n".join(line.plain for line in lines(found))
    assert short in Page(page(found, "store", [])).root.text
    assert where in [one["said"] for one in document(found, "store", [])["wrong"]]


def test_many_objects_at_fault_do_not_hide_the_rest() -> None:
    found = hostile()
    rest = len(found.wrong)
    lost = Finding(Verdict.MISSING, "text/1: nothing says where its bytes are kept")
    for number in range(4, 1004):
        found.nodes[f"object:{number}"] = Node(f"object:{number}", "object", f"text/{number}", "4" * 64, [lost])
    said = "\n".join(line.plain for line in lines(found))
    assert f"What is wrong ({1000 + rest})" in said
    assert "more of objects (--json lists all)" in said
    assert len(said.splitlines()) < 100
    assert "text/1: text/1" not in said
    assert "more of objects" in page(found, "store", [])
    assert len(document(found, "store", [])["wrong"]) == 1000 + rest


def test_a_replay_is_told_with_what_it_rests_on() -> None:
    found = hostile()
    found.replayed["stage:2"] = Finding(Verdict.ATTESTED, "came out otherwise", ("orjson was 1.0.0, here it is 3",))
    for told in ("\n".join(line.plain for line in lines(found)), page(found, "store", [])):
        assert all(words in told for words in ("What was done again", "came out otherwise", "orjson was", "here it is"))


def test_a_chain_of_a_thousand_stages_is_told_to_its_end() -> None:
    found = Audit("artifact:0")
    for number in range(1000):
        for kind in ("artifact", "stage"):
            found.nodes[f"{kind}:{number}"] = Node(f"{kind}:{number}", kind, f"{kind} {number}", "5" * 64)
        found.edges.append(Edge(f"artifact:{number}", f"stage:{number}", "made by"))
        found.edges.append(Edge(f"stage:{number}", f"artifact:{(number + 1) % 1000}", "made from"))
    said = [line.plain for line in lines(found)]
    assert sum("stage 999" in line for line in said) == 1
    assert any(line.endswith("artifact 0 555555555555 (above)") for line in said)


def test_the_page_loads_nothing_and_runs_nothing(built: Project) -> None:
    html = page(audited(built), "store", [])
    assert "default-src &#x27;none&#x27;" in html
    assert not re.search(r"<(script|link|img|iframe|object)\b|\bsrc=|\bhref=|url\(|@import", html)
    assert html == page(audited(built), "store", [])


def test_the_page_lists_every_node_and_edge(built: Project) -> None:
    found = audited(built)
    read = Page(page(found, "store", []))
    rows = [row for table in ("Nodes", "Objects") for row in read.table(table)[1:]]
    assert len(rows) == len(found.nodes)
    edges = [row for table in ("Edges", "Edges to objects") for row in read.table(table)[1:]]
    assert len(edges) == len(found.edges)


def test_what_is_wrong_comes_first_on_the_page() -> None:
    read = Page(page(hostile(), "store", []))
    assert "TAMPERED" in read.table("Nodes")[1][2]
    assert "5 findings are wrong" in read.root.text


def test_the_drawing_says_verdicts_in_words_and_all_objects_of_a_source_are_one_box(built: Project) -> None:
    for size in (WIDE, NARROW):
        drawn = drawing(audited(built), "graph", size, "wide").text
        assert "120 objects" in drawn
        assert "ATTESTED" in drawn
        assert "BYTES-MATCH" in drawn


def test_no_two_boxes_of_a_layout_overlap() -> None:
    size = Measures(width=100, height=40, gap=10, drop=20)
    nodes = [str(number) for number in range(9)]
    edges = [("0", "1"), ("0", "2"), ("1", "3"), ("2", "3"), ("3", "4"), ("0", "4"), ("4", "0"), ("2", "5"), ("5", "8")]
    placed = layout(nodes, edges, size)
    corners = list(placed.nodes.values())
    for index, (x, y) in enumerate(corners):
        assert 0 <= x <= placed.width - size.width
        assert 0 <= y <= placed.height - size.height
        assert all(abs(x - u) >= size.width or abs(y - v) >= size.height for u, v in corners[index + 1 :])
    assert placed.nodes["0"][1] < placed.nodes["1"][1] < placed.nodes["3"][1] < placed.nodes["4"][1]
    assert set(placed.edges) == set(edges)


def test_json_has_the_whole_graph_in_one_order(
    built: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(built.root)
    monkeypatch.delenv("CAIRN_STORE", raising=False)
    assert enter(["audit", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["format"] == "cairn-audit-v1"
    assert said["ok"] is True
    assert [node["id"] for node in said["nodes"]] == sorted(node["id"] for node in said["nodes"])
    assert {edge["role"] for edge in said["edges"]} == {"made by", "made from", "signed by"}
    assert enter(["audit", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == said


def test_json_says_what_is_wrong_and_with_what() -> None:
    said = document(hostile(), "store", [])
    assert said["ok"] is False
    assert [one["about"] for one in said["wrong"]][-1] == ["stage:2", "object:3"]


def test_a_page_is_not_written_into_an_artifact(
    built: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(built.root)
    with pytest.raises(ArtifactError, match="artifacts/model is an artifact"):
        enter(["audit", "--html", "artifacts/model/audit.html"])
