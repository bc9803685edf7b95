"""Evaluate: sampled held-out documents are scored again by the exported model.

Every total is computed again from the bits that stand beside the documents. The compressors and the continuations are
done again only with no limit to the sample: then the whole stage is run again.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from cairn.audit.replay.job import Job
from cairn.audit.replay.whole import run_again
from cairn.audit.verdicts import Finding, Verdict
from cairn.errors import ArtifactError
from components.ingest.documents import read_shard

TOLERANCE = 1e-4
"""Largest difference of a document's bits, as a share: other batches, and other hardware, add up in another order."""
ROUNDING = 0.011  # bits are written with two digits


def replay(job: Job) -> Finding:
    """Score the sample again and compare."""
    if job.sample.size is not None:
        return _sampled(job)
    odd = job.compare(run_again(job, {name: job.input(name) for name in job.component.inputs}))
    if not odd:
        return job.same("all held-out documents were scored again, to the same bytes")
    found = _sampled(job)
    if found.verdict is Verdict.CONFLICT:
        return found
    return job.close(f"{found.said}; but not all files are the same", odd)


def _sampled(job: Job) -> Finding:
    documents = job.files(job.attested.inputs["documents"])
    paths = sorted(path for path in documents if path.startswith("heldout/"))
    try:
        folder = job.input("documents", [*paths, "ledger.json"])
        heldout = [record for path in paths for record in read_shard(folder / path)]
        scores = job.output("scores", ["scores.json", "documents.jsonl"])
        told = [json.loads(line) for line in (scores / "documents.jsonl").read_bytes().splitlines()]
        table = json.loads((scores / "scores.json").read_bytes())
        if "masked" in table:
            return _masked(job, heldout, told, table["masked"])
        return _compared(job, heldout, told, table)
    except (ArtifactError, ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        return job.wrong("documents or scores are not in the form of their kind", [f"{type(error).__name__}: {error}"])


def _compared(job: Job, heldout: list[dict[str, Any]], told: list[dict[str, Any]], table: dict[str, Any]) -> Finding:
    from components.evaluate.bits import Scorer

    names = ("id", "domain", "bytes", "overlap")
    far: list[str] = []
    if [[one[name] for name in names] for one in told] != [[one[name] for name in names] for one in heldout]:
        far.append("documents.jsonl does not list the held-out documents")
    far += _totals(job, told, table)
    drawn = set(job.draw([record["id"] for record in heldout]))
    chosen = [record for record in heldout if record["id"] in drawn]
    scorer = Scorer(job.input("model"), job.section.threads)
    stride = min(job.section.stride or max(1, scorer.context // 2), scorer.context)
    again = scorer.bits([scorer.encode(record["text"]) for record in chosen], stride)
    bits = {one["id"]: one["bits"] for one in told}
    largest = 0.0
    exact = True
    for record, now in zip(chosen, again, strict=True):
        then = bits.get(record["id"], float("nan"))
        exact = exact and then == round(now, 2)
        apart = abs(then - now)
        if not apart <= ROUNDING + TOLERANCE * now:
            far.append(f"document {record['id'][:12]}: had {then} bits, has {now:.2f}")
        largest = max(largest, apart / now if now else 0.0)
    said = f"{len(chosen):,} of {len(heldout):,} held-out documents were scored again (seed {job.sample.seed})"
    said += "; every total is that of the documents"
    besides = "" if job.sample.size is None else "compressors and continuations were not done again"
    remains = job.remains(len(heldout), "held-out documents", besides)
    if far:
        return job.wrong(f"{said.partition(';')[0]}, with other results", far)
    if exact:
        return replace(job.same(f"{said}: the same bits"), remains=remains)
    # The sample makes other batches than all documents did, so here not even the same machine adds up alike.
    close = f"{said}; bits differ by {largest:.2g} of a document's at most (tolerance {TOLERANCE:g}, and two digits)"
    return Finding(Verdict.CLOSE, close, job.other_surroundings, remains)


def _masked(
    job: Job, heldout: list[dict[str, Any]], told: list[dict[str, Any]], table: dict[str, dict[str, Any]]
) -> Finding:
    """The same for a model that guesses masked tokens."""
    from components.evaluate.bits import Scorer, stride_of
    from components.evaluate.evaluate import by_domain
    from components.evaluate.masked import Found, MaskedScorer
    from components.evaluate.masked_scores import found_at, masked_row

    far: list[str] = []
    names = ("id", "domain", "bytes", "overlap")
    if [[one[name] for name in names] for one in told] != [[one[name] for name in names] for one in heldout]:
        far.append("documents.jsonl does not list the held-out documents")
    drawn = set(job.draw([record["id"] for record in heldout]))
    chosen = [record for record in heldout if record["id"] in drawn]
    folder = job.input("model")
    scorer = MaskedScorer(Scorer(folder, job.section.threads), folder)
    encoded = [scorer.scorer.encode(record["text"]) for record in chosen]
    exact = True
    for rate in job.section.mask_rates:
        then = {one["id"]: Found(**one["masked"][str(rate)]) for one in told}
        for (domain, kind), indices in by_domain(told, job.section).items():
            row = masked_row([then[told[index]["id"]] for index in indices], job.section)
            if table[str(rate)][domain][kind] != row:
                far.append(f"scores.json: {rate} {domain} {kind}: its documents give {row}")
        again = found_at(job.section, scorer, chosen, encoded, rate, stride_of(job.section, scorer.scorer))
        for record, now in zip(chosen, again, strict=True):
            was = then[record["id"]]
            exact = exact and was == now
            same = (was.tokens, was.bytes) == (now.tokens, now.bytes)
            if not (same and abs(was.bits - now.bits) <= ROUNDING + TOLERANCE * now.bits):
                far.append(f"document {record['id'][:12]}, {rate} masked: had {was}, has {now}")
    said = f"{len(chosen):,} of {len(heldout):,} held-out documents were scored again (seed {job.sample.seed})"
    besides = "" if job.sample.size is None else "the samples were not made again"
    remains = job.remains(len(heldout), "held-out documents", besides)
    if far:
        return job.wrong(f"{said}, with other results", far)
    if exact:
        return replace(job.same(f"{said}; every total is that of the documents: the same bits"), remains=remains)
    return Finding(Verdict.CLOSE, f"{said}; bits within {TOLERANCE:g} of a document's", job.other_surroundings, remains)


def _totals(job: Job, told: list[dict[str, Any]], table: dict[str, Any]) -> Iterator[str]:
    """Where `scores.json` has other numbers than the documents give."""
    from components.evaluate.evaluate import SETS, row_of

    domains = sorted({one["domain"] for one in told})
    if sorted(table["bits_per_byte"]) != domains:
        yield f"scores.json has the domains {', '.join(sorted(table['bits_per_byte']))}, not {', '.join(domains)}"
        return
    for domain in domains:
        for kind in SETS:
            rows = [
                one
                for one in told
                if one["domain"] == domain and (kind == "naive" or one["overlap"] < job.section.leak_threshold)
            ]
            row = row_of([one["bits"] for one in rows], [one["bytes"] for one in rows], job.section)
            said = {name: table["bits_per_byte"][domain][kind].get(name) for name in row}
            if said != row:
                yield f"scores.json: {domain} {kind}: says {said}, its documents give {row}"
