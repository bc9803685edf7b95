"""Where it comes from: digests, and the commands that make the model again, load it, or fetch it."""

from components.report.markup import Markup, breakable, tag
from components.report.material import Material
from components.report.slots import slot
from components.report.table import Column, table
from components.report.times import Times

REPRODUCE = """dvc repro        # or: cairn run
python - <<'END'
from pathlib import Path
from cairn.lineage.artifact import digest_of
print(digest_of(Path("artifacts/model")))
END
"""
LOAD = """from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("artifacts/model")
tokenizer = AutoTokenizer.from_pretrained("artifacts/model")
"""
LOAD_MASKED = LOAD.replace("AutoModelForCausalLM", "AutoModelForMaskedLM")
FETCH = """from pathlib import Path
from cairn.lineage.store import Store

Store.default().get("{digest}", Path("model"))
"""


def section(material: Material) -> Markup:
    """The section of the page."""
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
        slot(
            "around",
            "Those of the sources, the tokenizer and the optimizer state are in the attestations; ",
            tag("code", "cairn report"),
            " shows them here.",
        ),
        tag("h3", "Reproduce this"),
        tag(
            "p",
            "With the same packages, in a clone of the project at the commit whose ",
            tag("code", "params.yaml"),
            " and ",
            tag("code", "sources.lock.json"),
            " made it. The last command prints the digest of the model: ",
            tag("code", model[:12]),
            "… on the same kind of machine.",
        ),
        tag("pre", REPRODUCE, class_="code"),
        tag("h3", "Load this"),
        tag("pre", LOAD_MASKED if material.masked else LOAD, class_="code"),
        tag("p", "Or by digest, from the store of the project:"),
        tag("pre", FETCH.format(digest=model), class_="code"),
    )


def around(times: Times | None) -> Markup:
    """What attestations tell of the artifacts around."""
    if times is None or not times.digests:
        return tag("p", "The store holds no attestation that tells the artifacts around.", class_="times")
    rows = [[breakable(name), tag("code", digest)] for name, digest in sorted(times.digests.items())]
    return table("By the attestations", [Column("artifact", "word"), Column("sha256", "digest")], rows)
