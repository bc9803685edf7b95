"""The goldens of all stages, and what makes a golden fail, be skipped, or be written."""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cairn.lineage.artifact import digest_of
from cairn.lineage.stage import Component
from cairn.lineage.store import Store
from cairn.recipe import Section
from cairn.resources import Resources
from components.evaluate.recipe import Evaluate
from components.export.recipe import Export
from components.ingest.recipe import Ingest, Split
from components.pretrain.recipe import Pretrain
from components.snapshot.lock import read_lock
from components.snapshot.recipe import Snapshot, Source
from components.snapshot.snapshot import snapshot
from components.tokenize.recipe import Tokenize
from tests.components.inputs import (
    Document,
    run,
    sentences,
    write_checkpoint,
    write_documents,
    write_model,
    write_tokenizer,
)
from tests.golden import WRITE, keep
from tests.trainer.tokens import counting
from trainer.recipe import ModelShape

# Packed files that every machine writes byte by byte alike: no compressor is involved.


def gz(data: bytes) -> bytes:
    """A gzip file (RFC 1952) with one stored block."""
    size = len(data).to_bytes(2, "little")
    block = b"\x01" + size + bytes(255 - byte for byte in size) + data
    tail = zlib.crc32(data).to_bytes(4, "little") + len(data).to_bytes(4, "little")
    return b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff" + block + tail


def zst(data: bytes) -> bytes:
    """A zstd file (RFC 8878) with one raw block."""
    header = b"\x28\xb5\x2f\xfd\xa0" + len(data).to_bytes(4, "little")
    return header + (len(data) << 3 | 1).to_bytes(3, "little") + data


def jsonl(*texts: str, field: str = "text") -> bytes:
    return "".join(json.dumps({field: text, "other": 1}) + "\n" for text in texts).encode()


CODE = '''"""A module about cairns, which mark a path where no path is to be seen."""


def count(stones: list[int]) -> int:
    """How many stones there are: the sum of them all, whatever their size may be."""
    return sum(stones)  # naïve
'''


def write_corpus(folder: Path) -> None:
    """Two domains and every format, with a duplicate, a document that the rules drop, and text that NFC changes."""
    text = folder / "text"
    text.mkdir()
    (text / "one.txt").write_text(sentences(1))
    (text / "same-as-one.md").write_text(sentences(1))
    (text / "two.md").write_text(f"# Cafe\u0301\n\n{sentences(2)}")
    (text / "short.txt").write_text("No.")
    (text / "many.jsonl").write_bytes(jsonl(*(sentences(number) for number in range(3, 30))))
    (text / "packed.jsonl.gz").write_bytes(gz(jsonl(*(sentences(number) for number in range(30, 45)))))
    (text / "packed.txt.zst").write_bytes(zst(f"{sentences(45)}lorem ipsum\n".encode()))
    (folder / "code").mkdir()
    (folder / "code" / "cairns.py").write_text(CODE)


def write_table(folder: Path) -> None:
    """Parquet, whose bytes are those of one version of pyarrow."""
    table = pa.table({"content": [sentences(number, lines=4) for number in range(50, 60)], "other": range(10)})
    (folder / "tables").mkdir()
    pq.write_table(table, folder / "tables" / "rows.parquet", compression="zstd")


TEXT = Source(name="text", uri="text", domain="walks", licence="CC0-1.0")
CODE_SOURCES = (
    Source(name="code", uri="code", read="python-code", kind="code", domain="code", licence="MIT OR Apache-2.0"),
    Source(name="docstrings", uri="code", read="python-docstrings", domain="code", licence="MIT OR Apache-2.0"),
)
TABLES = Source(name="tables", uri="tables", domain="tables", licence="LicenseRef-house", text_field="content")


def take_snapshot(root: Path, section: Snapshot) -> Path:
    """The lock file of the sources in the folder that the process is in."""
    lock = root / "sources.lock.json"
    snapshot(
        section,
        lock,
        refresh=False,
        component=Component.of("components.snapshot"),
        store=Store(str(root / "store")),
        resources=Resources(workers=1, processes=1),
        home=root / ".cairn",
    )
    return lock


def digests(places: Mapping[str, Path]) -> dict[str, str]:
    """Digests by name."""
    found = {name: digest_of(path) for name, path in places.items()}
    return {name: digest for name, digest in found.items() if digest is not None}


def keep_stage(
    name: str,
    section: Section,
    inputs: Mapping[str, Path],
    made: Mapping[str, Any],
    tolerance: float = 0.0,
    packages: tuple[str, ...] = (),
) -> None:
    component = Component.of(f"components.{name}")
    keep(component, section, digests(inputs), made, tolerance=tolerance, packages=packages)


@pytest.mark.golden
def test_the_lock_file_of_a_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_corpus(tmp_path)
    section = Snapshot(sources=(TEXT, *CODE_SOURCES))
    lock = take_snapshot(tmp_path, section)
    objects = {uri: found.sha256 for uri, found in read_lock(lock).objects().items()}
    keep(Component.of("components.snapshot"), section, objects, digests({"sources": lock}))


@pytest.mark.golden
def test_the_documents_of_a_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_corpus(tmp_path)
    write_table(tmp_path)
    inputs = {"sources": take_snapshot(tmp_path, Snapshot(sources=(TEXT, *CODE_SOURCES, TABLES)))}
    section = Ingest(split=Split(heldout=0.2, development=0.2), shard_bytes=4000, min_document_bytes=40)
    made = run("ingest", section, tmp_path, inputs)
    ledger = json.loads((made["documents"] / "ledger.json").read_bytes())
    dropped = {reason for source in ledger["sources"].values() for reason in source["dropped"]}
    assert {"duplicate", "min_document_bytes", "c4.lorem_ipsum"} <= dropped
    assert all(ledger["splits"][split] for split in ("train", "development", "heldout"))
    keep_stage("ingest", section, inputs, digests(made))


@pytest.mark.golden
def test_the_tokens_of_documents(tmp_path: Path) -> None:
    train = [Document(sentences(number), domain="walks" if number % 3 else "notes") for number in range(40)]
    strange = Document("日本語 naïve 🏔️ <|endoftext|> \u0000\r\n\n\n   don't 12345")
    documents = write_documents(
        tmp_path / "documents", shard_bytes=2500, train=[*train, strange], development=[Document(sentences(99))]
    )
    section = Tokenize(vocab_size=320, shard_tokens=500, train_bytes=10_000)
    made = run("tokenize", section, tmp_path, {"documents": documents})
    keep_stage("tokenize", section, {"documents": documents}, digests(made), packages=("orjson", "zstandard"))


@pytest.mark.golden
def test_the_losses_of_a_short_training(tmp_path: Path) -> None:
    tokens = counting(tmp_path / "tokens")
    section = Pretrain(
        model=ModelShape(layers=1, width=16, heads=2, kv_heads=1, head_dim=8, mlp_width=32, context=16),
        steps=20,
        batch=4,
        micro_batch=2,
        precision="fp32",
        evaluate_every=10,
        log_every=1,
    )
    made = run("pretrain", section, tmp_path, {"tokens": tokens})
    lines = [json.loads(line) for line in (made["checkpoint"] / "training.jsonl").read_text().splitlines()]
    numbers = {
        "loss": [line["loss"] for line in lines],
        "first_grad_norm": lines[0]["grad_norm"],
        "development": {name: value for name, value in lines[-1].items() if name.startswith("development")},
    }
    # On one kind of processor the numbers repeat to the last digit. Another sums in another order, and Muon, which
    # works in bf16, makes of it up to 0.003 by the last steps (kernels without AVX against those with AVX-512).
    keep_stage("pretrain", section, {"tokens": tokens}, numbers, tolerance=1e-2, packages=("pyarrow",))


@pytest.mark.golden
def test_the_files_of_an_exported_model(tmp_path: Path) -> None:
    tokenizer = write_tokenizer(tmp_path / "tokenizer")
    inputs = {"tokenizer": tokenizer, "checkpoint": write_checkpoint(tmp_path / "checkpoint", tokenizer)}
    section = Export(name="golden", dtype="bfloat16", shard_bytes=20_000)
    keep_stage("export", section, inputs, digests(run("export", section, tmp_path, inputs)))


@pytest.mark.golden
def test_the_scores_of_a_model_that_was_never_trained(tmp_path: Path) -> None:
    heldout = [
        Document(sentences(number), domain="walks" if number % 3 else "notes", overlap=number % 4 / 10)
        for number in range(100, 112)
    ]
    inputs = {
        "model": write_model(tmp_path, merges=["t h", "th e", "Ġ the"]).folder,
        "documents": write_documents(
            tmp_path / "documents", train=[Document(sentences(number)) for number in range(200)], heldout=heldout
        ),
    }
    section = Evaluate(resamples=200, zstd_dictionaries=(4096,), ppmd_orders=(5, 8), prompts=0)
    made = run("evaluate", section, tmp_path, inputs)
    numbers = json.loads((made["scores"] / "scores.json").read_bytes())
    # Rounded to four digits, these do not move between processors; a last digit may.
    keep_stage("evaluate", section, inputs, numbers, tolerance=2e-4, packages=("safetensors", "orjson"))


# What a golden does

COMPONENT = Component(
    name="shout",
    version="1.2.0",
    stability="beta",
    description="Writes its input in capitals.",
    inputs=("words",),
    outputs=("loud",),
    packages=("numpy",),
)


class Shout(Section):
    times: int = 1


class Shop:
    """A folder with the golden of a made-up component, and the bytes that the component makes by now."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.monkeypatch = folder, monkeypatch
        self.keep(writing=True)

    def keep(
        self,
        *,
        writing: bool = False,
        component: Component = COMPONENT,
        words: str = "a1",
        times: int = 1,
        made: Mapping[str, Any] | None = None,
        tolerance: float = 0.0,
    ) -> None:
        self.monkeypatch.setenv(WRITE, "1" if writing else "")
        keep(
            component,
            Shout(times=times),
            {"words": words},
            {"loud": "b2"} if made is None else made,
            tolerance=tolerance,
            folder=self.folder,
        )

    def kept(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "shout.json").read_bytes())
        return found


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    return Shop(tmp_path, monkeypatch)


NEWER = COMPONENT.model_copy(update={"version": "1.10.0"})
CHANGED = {"loud": "c3"}


def test_a_golden_that_is_kept_passes_and_says_what_was_promised(shop: Shop) -> None:
    shop.keep()
    kept = shop.kept()
    assert kept["packages"] == COMPONENT.package_versions()
    assert {name: kept[name] for name in ("version", "inputs", "section", "made")} == {
        "version": "1.2.0",
        "inputs": {"words": "a1"},
        "section": {"times": 1},
        "made": {"loud": "b2"},
    }


def test_without_a_golden_the_way_to_one_is_told(tmp_path: Path, shop: Shop) -> None:
    (tmp_path / "shout.json").unlink()
    with pytest.raises(pytest.fail.Exception, match="shout has no golden: run `make goldens`"):
        shop.keep()


@pytest.mark.parametrize("writing", [False, True])
def test_other_bytes_under_one_version_fail_and_are_not_written(shop: Shop, writing: bool) -> None:
    told = (
        r"shout: what it makes changed under version 1\.2\.0 \(loud was b2, is c3\): "
        r"raise the version in components/shout/metadata\.yaml, then run `make goldens`\."
    )
    with pytest.raises(pytest.fail.Exception, match=f"{told}{' The golden was not written' if writing else '$'}"):
        shop.keep(made=CHANGED, writing=writing)
    assert shop.kept()["made"] == {"loud": "b2"}


def test_under_a_raised_version_other_bytes_are_written_and_from_then_on_kept(shop: Shop) -> None:
    with pytest.raises(pytest.fail.Exception, match="its golden is of another version: run `make goldens`"):
        shop.keep(component=NEWER, made=CHANGED)
    shop.keep(component=NEWER, made=CHANGED, writing=True)
    assert (shop.kept()["version"], shop.kept()["made"]) == ("1.10.0", CHANGED)
    shop.keep(component=NEWER, made=CHANGED)
    with pytest.raises(pytest.fail.Exception, match=r"went from 1\.10\.0 back to 1\.2\.0: raise it"):
        shop.keep(writing=True)


def test_a_golden_of_other_inputs_or_another_section_is_out_of_date_and_not_a_broken_promise(shop: Shop) -> None:
    with pytest.raises(pytest.fail.Exception, match="its golden is of other inputs: run `make goldens`"):
        shop.keep(words="a2", made=CHANGED)
    with pytest.raises(pytest.fail.Exception, match="its golden is of another section: run `make goldens`"):
        shop.keep(times=2, made=CHANGED)
    shop.keep(words="a2", made=CHANGED, writing=True)
    shop.keep(words="a2", made=CHANGED)


def test_with_other_packages_than_the_golden_was_made_with_it_is_skipped_and_they_are_named(shop: Shop) -> None:
    path = shop.folder / "shout.json"
    path.write_text(json.dumps({**shop.kept(), "packages": {"numpy": "1.0.0"}}))
    installed = COMPONENT.package_versions()["numpy"]
    with pytest.raises(pytest.skip.Exception, match=rf"made with numpy 1\.0\.0, here it is {installed}: nothing was"):
        shop.keep(made=CHANGED)
    shop.keep(made=CHANGED, writing=True)
    assert shop.kept()["packages"] == {"numpy": installed}
    shop.keep(made=CHANGED)


def test_numbers_are_kept_within_a_tolerance_and_small_steps_do_not_add_up(shop: Shop) -> None:
    numbers: dict[str, Any] = {"loss": [2.0, 1.5], "documents": 3}
    shop.keep(made=numbers, tolerance=0.01, writing=True, words="a3")
    shop.keep(made={**numbers, "loss": [2.009, 1.5]}, tolerance=0.01, writing=True, words="a3")
    assert shop.kept()["made"] == numbers
    for changed, told in (
        ({"loss": [2.0, 1.52]}, r"loss\[1\] was 1\.5, is 1\.52"),
        ({"loss": [2.0]}, r"loss was \[2\.0, 1\.5\], is \[2\.0\]"),
        ({"loss": [2.0, float("nan")]}, r"loss\[1\] was 1\.5, is nan"),
        ({"documents": 4}, "documents was 3, is 4"),
    ):
        with pytest.raises(pytest.fail.Exception, match=told):
            shop.keep(made={**numbers, **changed}, tolerance=0.01, words="a3")
