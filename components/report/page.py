"""The page: head, key figures, sections, and the place for what only an attestation may tell."""

import base64
import hashlib
import math
import re
from pathlib import Path

from cairn.errors import ArtifactError
from cairn.progress import duration
from components.report import data, scores, training
from components.report.markup import Markup, breakable, join, tag
from components.report.material import Material, Sample
from components.report.recipe import Report
from components.report.svg import scientific
from components.report.table import Column, table
from components.report.times import Times
from components.report.wording import bits, plural, short, spelled, whole

FORMAT = "cairn-report-v1"
SLOTS = ("times", "around")  # places that only attestations can fill
NO_REPORT = f"report.html: is not a report of the form {FORMAT}: run the report stage again"
CHARACTERS = 4000  # of a prompt or a continuation that are shown
HERE = Path(__file__).parent


def page(section: Report, material: Material) -> str:
    """The whole page as HTML. The same material gives the same bytes; nothing is loaded from anywhere."""
    style, script = (Markup((HERE / name).read_text(encoding="utf-8")) for name in ("page.css", "page.js"))
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="generator", content=FORMAT),
        tag("meta", name="cairn-checkpoint", content=material.digests["checkpoint"]),
        # A second wall behind the escaping: nothing but this style and this script takes effect, nothing is fetched.
        tag(
            "meta",
            http_equiv="Content-Security-Policy",
            content=f"default-src 'none'; style-src {_source(style)}; script-src {_source(script)}; base-uri 'none'",
        ),
        tag("title", f"{material.name}: pre-training report"),
        tag("style", style),
    )
    body = tag(
        "body",
        tag(
            "main",
            _header(material),
            scores.section(material.scores, section.domains),
            training.section(material),
            data.section(material, section.domains),
            _samples(material.samples, section.samples),
            _origin(material),
        ),
        tag("script", script),
    )
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en').text}\n"


def with_times(html: str, times: Times | None) -> str:
    """A copy of a report in which the marked places tell time, speed and machine, and the artifacts around.

    Raises ArtifactError when `html` is no report of this form.
    """
    checkpoint_of(html)
    for name, content in zip(SLOTS, (_times(times), _around(times)), strict=True):
        begin, end = _marks(name)
        before, begun, rest = html.partition(begin)
        _, ended, after = rest.partition(end)
        if not begun or not ended:
            raise ArtifactError(NO_REPORT)
        html = before + begin + content.text + end + after
    return html


def checkpoint_of(html: str) -> str:
    """Digest of the checkpoint that a report is about: its attestation has the times.

    Raises ArtifactError when `html` is no report.
    """
    found = re.search(
        rf'<meta name="generator" content="{FORMAT}"/><meta name="cairn-checkpoint" content="([0-9a-f]{{64}})"/>', html
    )
    if found is None:
        raise ArtifactError(NO_REPORT)
    return found[1]


def _header(material: Material) -> Markup:
    manifest, shape = material.manifest, material.manifest.model
    what, score = scores.headline(material.scores)
    first = scores.best(score)
    train = material.tokens.count("train")
    passes = f"{manifest.tokens_seen / train:.2g} passes over {short(train)}" if train else ""
    interval = f"95 % interval {bits(score.low)} – {bits(score.high)}" if math.isfinite(score.low) else ""
    beside = f"best compressor {bits(first[1])}, {scores.compressor(first[0])}" if first else "no compressor beside it"

    return tag(
        "header",
        tag("p", "Pre-training report", class_="kicker"),
        tag("h1", breakable(material.name), class_="long" if len(material.name) > 48 else None),
        tag(
            "p",
            f"A base language model of {spelled(manifest.parameters)} parameters, trained from scratch on "
            f"{spelled(manifest.tokens_seen)} tokens.",
            class_="lead",
        ),
        tag(
            "dl",
            _figure("Bits per byte", bits(score.bits_per_byte), [what, interval, beside], "first"),
            _figure(
                "Parameters",
                short(manifest.parameters),
                [f"{plural(shape.layers, 'layer')} of width {whole(shape.width)}", material.architecture],
            ),
            _figure("Tokens seen", short(manifest.tokens_seen), [passes]),
            _figure(
                "Compute",
                scientific(6.0 * manifest.parameters * manifest.tokens_seen),
                ["FLOP, as 6 × parameters × tokens"],
            ),
            class_="figures",
        ),
        _slot(
            "times",
            "Time, speed and machine are not on this page: it is an artifact, named by its digest, and the same run "
            "gives the same bytes on any machine. They are in the attestation of the training run; ",
            tag("code", "cairn report"),
            " shows them here.",
        ),
    )


def _slot(name: str, *said: Markup | str) -> Markup:
    """A place for what only attestations can tell, and what stands there until then."""
    begin, end = _marks(name)
    return join([Markup(begin), tag("p", *said, class_="times"), Markup(end)])


def _marks(name: str) -> tuple[str, str]:
    # Data cannot hold them: its `<` is escaped.
    return f"<!--{name}-->", f"<!--/{name}-->"


def _figure(name: str, value: str, notes: list[str], class_: str | None = None) -> Markup:
    told = [tag("dd", note, class_="note") for note in notes if note]
    return tag("div", tag("dt", name), tag("dd", value, class_="value"), *told, class_=class_)


def _times(times: Times | None) -> Markup:
    if times is None:
        said = (
            "The store holds no attestation of this training run that a trusted key signed, so its time is not known."
        )
        return tag("p", said, class_="times")
    since = f"from step {whole(times.resumed_at)}, where it was resumed" if times.resumed_at else "of training"
    many = f"{plural(times.processes, 'process', 'processes')}, {plural(times.threads, 'thread')} each"
    code = f"code {times.commit[:12]}" + (", with changes" if times.changed else "") if times.commit else ""
    return tag(
        "dl",
        _figure("Time", duration(times.seconds), [since, f"done {times.finished[:16].replace('T', ' ')} UTC"]),
        _figure("Speed", short(times.tokens_per_second), ["tokens per second"]),
        _figure("Machine", times.processor, [many, f"{times.peak_gib:.2f} GiB at most", code], "words"),
        class_="figures",
    )


def _around(times: Times | None) -> Markup:
    if times is None or not times.digests:
        return tag("p", "The store holds no attestation that tells the artifacts around.", class_="times")
    rows = [[breakable(name), tag("code", digest)] for name, digest in sorted(times.digests.items())]
    return table("By the attestations", [Column("artifact", "word"), Column("sha256", "digest")], rows)


def _samples(samples: list[Sample], most: int) -> Markup:
    """The first samples of every domain in turn, so that each domain has its say."""
    turns: dict[str, int] = {}
    ordered = []
    for place, sample in enumerate(samples):
        turns[sample.domain] = turns.get(sample.domain, -1) + 1
        ordered.append((turns[sample.domain], place, sample))
    chosen = [sample for _, _, sample in sorted(ordered, key=lambda item: item[:2])[:most]]
    if not chosen:
        return tag("section", tag("h2", "Samples"), tag("p", "No continuation was asked for."))
    rest = len(samples) - len(chosen)
    more = f" {plural(rest, 'more is', 'more are')} in samples.json of the scores artifact." if rest else ""
    return tag(
        "section",
        tag("h2", "Samples"),
        tag(
            "p",
            "The beginning of held-out documents, and how the model goes on from there, taking the likeliest token "
            f"each time.{more}",
        ),
        *(_sample(sample) for sample in chosen),
    )


def _sample(sample: Sample) -> Markup:
    return tag(
        "figure",
        tag("figcaption", tag("bdi", sample.domain), " · document ", tag("code", sample.document[:12])),
        tag("pre", tag("bdi", _cut(sample.prompt)), tag("mark", tag("bdi", _cut(sample.continuation)))),
        class_="sample",
    )


def _origin(material: Material) -> Markup:
    digests = [*material.digests.items(), ("tokenizer.json", material.tokens.tokenizer)]
    model = material.digests["model"]
    return tag(
        "section",
        tag("h2", "Where it comes from"),
        tag(
            "p",
            "The sha256 of everything that this page was drawn from. In the store, the attestation of each says what "
            "made it and from what, back to every source object.",
        ),
        table(
            "Digests",
            [Column("artifact", "word"), Column("sha256", "digest")],
            [[breakable(artifact), tag("code", digest)] for artifact, digest in digests],
        ),
        _slot(
            "around",
            "Those of the sources, the tokenizer and the optimizer state are in the attestations; ",
            tag("code", "cairn report"),
            " shows them here.",
        ),
        tag("h3", "Reproduce this"),
        tag(
            "p",
            "In a clone of the project at the commit whose ",
            tag("code", "params.yaml"),
            " and ",
            tag("code", "sources.lock.json"),
            " made it. The last command prints the digest of the model, ",
            tag("code", model[:12]),
            "… on the same kind of machine.",
        ),
        tag("pre", _REPRODUCE, class_="code"),
        tag("h3", "Load this"),
        tag("pre", _LOAD, class_="code"),
        tag("p", "Or by digest, from the store of the project:"),
        tag("pre", _FETCH.format(digest=model), class_="code"),
    )


_REPRODUCE = """make setup
dvc repro        # or: cairn run
python - <<'END'
from pathlib import Path
from cairn.lineage.artifact import digest_of
print(digest_of(Path("artifacts/model")))
END
"""
_LOAD = """from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("artifacts/model")
tokenizer = AutoTokenizer.from_pretrained("artifacts/model")
"""
_FETCH = """from pathlib import Path
from cairn.lineage.store import Store

Store.default().get("{digest}", Path("model"))
"""


def _cut(text: str) -> str:
    return text if len(text) <= CHARACTERS else f"{text[:CHARACTERS]}…"


def _source(content: Markup) -> str:
    digest = hashlib.sha256(content.text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
