"""Two projects with one store run the same stages at once: both end, and an audit finds what each alone would leave."""

import json
import multiprocessing
import os
from pathlib import Path

from cairn.audit.walk import audit
from cairn.lineage import attestation, signing
from cairn.lineage.artifact import digest_of
from cairn.lineage.stage import Component, Task, run_stage
from cairn.lineage.store import Store
from cairn.resources import Resources
from components.ingest.__main__ import work
from components.ingest.recipe import Ingest
from tests.audit.attacks import wrong
from tests.components.corpus import EVERYTHING, Corpus, source

fork = multiprocessing.get_context("fork")


def test_both_end_and_the_audit_is_clean(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    meet = fork.Barrier(2)

    def run(corpus: Corpus) -> None:
        os.chdir(corpus.root)
        corpus.snapshot(source("text"))

        def together(section: Ingest, task: Task) -> None:
            meet.wait(60)
            work(section, task)
            meet.wait(60)  # what follows, both do at once: pins, attestations, records

        run_stage(
            Component.of("components.ingest"),
            Ingest.model_validate_json(json.dumps(EVERYTHING)),
            together,
            inputs={"sources": Path("sources.lock.json")},
            outputs={"documents": Path("artifacts/documents")},
            store=store,
            resources=Resources(workers=1, processes=1),
        )
        store.put(Path("artifacts/documents"))

    signing.signer()
    corpora = [Corpus(tmp_path / name) for name in ("one", "two")]
    for corpus in corpora:
        corpus.store = store
        for number in range(20):
            corpus.put(f"{number}.txt", f"what walker {number} found\n" * 20)
    processes = [fork.Process(target=run, args=(corpus,)) for corpus in corpora]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    made = {digest_of(corpus.root / "artifacts" / "documents") or "" for corpus in corpora}
    (documents,) = made
    found = [attestation.verify(data, signing.trusted_keys()) for _, data in attestation.made(store, documents)]
    assert len({one.invocation for one in found}) == 2
    assert wrong(audit(documents, store=store, keys=signing.trusted_keys())) == []
