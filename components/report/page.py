"""The page as a whole: its sections in order, its style and script, and the copy that tells more than the artifact."""

import re
from pathlib import Path

from cairn.errors import ArtifactError
from components.report import data, masked, origin, samples, scores, training
from components.report.headline import header, machine
from components.report.markup import Markup, document
from components.report.material import MaskedScores, Material
from components.report.recipe import Report
from components.report.slots import filled
from components.report.times import Times

FORMAT = "cairn-report-v1"
NO_REPORT = f"report.html: is not a report of the form {FORMAT}: run the report stage again"
HERE = Path(__file__).parent


def page(section: Report, material: Material) -> str:
    """The whole page as HTML. The same material gives the same bytes; nothing is loaded from anywhere."""
    style, script = Markup(_file("figures.css") + _file("page.css")), Markup(_file("page.js"))
    return document(
        f"{material.name}: pre-training report",
        FORMAT,
        style,
        header(material),
        _scores(material, section.domains),
        training.section(material),
        data.section(material, section.domains),
        samples.section(material.samples, section.samples),
        origin.section(material),
        script=script,
        cairn_checkpoint=material.digests["checkpoint"],
    )


def _scores(material: Material, most: int) -> Markup:
    if isinstance(material.scores, MaskedScores):
        return masked.section(material.scores, most)
    return scores.section(material.scores, most)


def with_times(html: str, times: Times | None) -> str:
    """A copy of a report in which the marked places tell time, speed and machine, and the artifacts around.

    Raises ArtifactError when `html` is no report of this form.
    """
    checkpoint_of(html)
    copy = filled(html, {"times": machine(times), "around": origin.around(times)})
    if copy is None:
        raise ArtifactError(NO_REPORT)
    return copy


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


def _file(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")
