"""The report of a project that was built: the numbers of the other artifacts, and commands that do what it says."""

import json
import re
import shutil
from pathlib import Path

from cairn.lineage import attestation, signing
from cairn.lineage.artifact import digest_of
from cairn.lineage.store import Store
from components.report.page import checkpoint_of, with_times
from components.report.times import times_of
from pipelines import plots
from tests.components.page_reader import Page
from tests.pipelines.project import ROOT, Project


def report(project: Project) -> str:
    """The page of a project."""
    return (project.root / "artifacts" / "report" / "report.html").read_text(encoding="utf-8")


def test_the_page_says_what_dvc_shows_and_the_ledger_holds(built: Project) -> None:
    page = Page(report(built))
    shown = json.loads(built.run("dvc", "metrics", "show", "--json"))
    scores = next(iter(shown[""]["data"].values()))["data"]["bits_per_byte"]
    said = {(row[0], row[1]): row for row in page.table("Bits per byte on held-out text")[1:]}
    for domain, sets in scores.items():
        for text, kind in (("all", "naive"), ("filtered", "filtered")):
            assert float(said[domain, text][4]) == sets[kind]["bits_per_byte"]
            assert f"{sets[kind]['low']:.4f} – {sets[kind]['high']:.4f}" == said[domain, text][5]
    ledger = json.loads((built.root / "artifacts" / "documents" / "ledger.json").read_bytes())
    funnel = {row[0]: row[2] for row in page.table("From what came in to what was kept")[1:]}
    assert funnel["came in"] == str(sum(source["in"]["documents"] for source in ledger["sources"].values()))
    assert funnel["kept"] == str(sum(source["kept"]["documents"] for source in ledger["sources"].values()))


def test_the_digests_on_the_page_are_those_of_the_artifacts(built: Project) -> None:
    digests = dict(Page(report(built)).table("Digests")[1:])
    assert digests.pop("tokenizer.json") == digest_of(built.root / "artifacts" / "tokenizer" / "tokenizer.json")
    assert set(digests) == {"documents", "tokens", "checkpoint", "model", "scores"}
    assert digests == {name: digest for name, digest in built.digests().items() if name in digests}


def test_the_samples_on_the_page_are_those_of_the_scores(built: Project) -> None:
    samples = json.loads((built.root / "artifacts" / "scores" / "samples.json").read_bytes())
    shown = [
        element.raw for element in Page(report(built)).root.all("figure", "sample") for element in element.all("pre")
    ]
    assert shown == [sample["prompt"] + sample["continuation"] for sample in samples]


def test_the_commands_on_the_page_give_the_model(copy: Project, tmp_path: Path) -> None:
    blocks = [element.raw for element in Page(report(copy)).root.all("pre", "code")]
    reproduce, load, fetch = blocks
    copy.run("dvc", "push")
    digest = digest_of(copy.root / "artifacts" / "model")
    check = reproduce[reproduce.index("python - ") :]
    assert copy.run("bash", "-c", check).strip() == digest
    assert copy.run("python", "-c", load + "print(model.num_parameters())").split()[-1].isdecimal()
    fetched = tmp_path / "fetched"
    copy.run("python", "-c", fetch.replace('Path("model")', f"Path({str(fetched)!r})"))
    assert digest_of(fetched) == digest


def test_the_copy_for_a_person_has_the_times_of_the_attestation(built: Project) -> None:
    html = report(built)
    store = Store(str(built.root / ".cairn" / "store"))
    times = times_of(store, checkpoint_of(html))
    assert times is not None
    (envelope,) = [envelope for _, envelope in attestation.made(store, checkpoint_of(html))]
    said = attestation.verify(envelope, signing.trusted_keys()).statement
    facts = said["predicate"]["buildDefinition"]["internalParameters"]["facts"]
    assert (times.seconds, times.tokens_per_second) == (facts["seconds"], facts["tokens_per_second"])
    page = Page(with_times(html, times))
    assert page.key_figure("Speed")[1] == "tokens per second"
    assert page.key_figure("Machine")[1] == "1 process, 1 thread each"
    digests = built.digests()
    lock = digest_of(built.root / "sources.lock.json")
    assert dict(page.table("By the attestations")[1:]) == {
        "optimizer": digests["optimizer"],
        "sources": lock,
        "tokenizer": digests["tokenizer"],
    }
    assert times_of(store, "0" * 64) is None


def test_an_attestation_that_was_changed_gives_no_times(built: Project, tmp_path: Path) -> None:
    shutil.copytree(built.root / ".cairn" / "store", tmp_path / "store")
    store = Store(str(tmp_path / "store"))
    checkpoint = checkpoint_of(report(built))
    (path,) = (tmp_path / "store" / "attestations" / checkpoint).iterdir()
    envelope = json.loads(path.read_bytes())
    envelope["payload"] = envelope["payload"][:-8] + "AAAAAAA="
    path.write_text(json.dumps(envelope))
    assert times_of(store, checkpoint) is None


def test_the_plots_of_dvc_are_drawn_from_one_page_that_loads_nothing(built: Project) -> None:
    place = Path(built.run("dvc", "plots", "show").strip().splitlines()[-1].removeprefix("file://"))
    html = place.read_text(encoding="utf-8")
    shutil.rmtree(place.parent)
    for fetched in re.findall(r"""(?:src|href|srcset)\s*=\s*["']?([^"'\s>]+)""", html):
        assert "://" not in fetched, fetched
    assert not re.search(r"@import|url\(|fetch\(|import\(", html)
    assert "default-src 'none'" in html
    specs = [json.loads(spec) for spec in re.findall(r"var spec = (.*);$", html, re.MULTILINE)]
    assert [spec["encoding"]["y"]["field"] for spec in specs] == ["loss", "score", "grad_norm", "lr"]
    log = [json.loads(line) for line in (built.root / "artifacts/checkpoint/training.jsonl").read_text().splitlines()]
    drawn = [(int(row["step"]), float(row["loss"])) for row in specs[0]["data"]["values"]]
    assert drawn == [(line["step"], line["loss"]) for line in log]
    measured = [(int(row["step"]), row["domain"], float(row["score"])) for row in specs[1]["data"]["values"]]
    assert measured == [
        (line["step"], "walks", line["development_bits_per_byte.walks"])
        for line in log
        if "development_bits_per_byte.walks" in line
    ]


def test_the_templates_of_the_plots_are_what_the_dag_writes() -> None:
    for path, content in plots.files().items():
        assert (ROOT / path).read_text(encoding="utf-8") == content, "run `cairn dag --write`"
    assert "html_template = plots/page.html" in (ROOT / ".dvc" / "config").read_text()
