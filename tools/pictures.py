"""Draw the pictures of the documentation from a project whose run is done, and renew what docs/index.md says of it.

    python tools/pictures.py ../first

The pictures are the figures of the project's report, each a drawing that stands alone: on a ground of its own, in the
reader's colour scheme, with nothing to fetch. Nothing in them or in the page depends on when or where this is run.
"""

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import cairn.recipe
from cairn.errors import ArtifactError, guard
from cairn.lineage.artifact import written_aside
from components.recipe import Recipe
from components.report import data, scores, training
from components.report.markup import Markup, tag
from components.report.material import READS, Material, Scores, read
from components.report.page import HERE
from components.report.svg import box, dot, label, line, shortened, svg
from components.report.wording import share, size, whole
from pipelines.stages import RECIPE, place
from pipelines.state import SETTLED, Standing, standings

ROOT = Path(__file__).resolve().parent.parent
PICTURES = Path("docs", "pictures")
PAGE = Path("docs", "index.md")
STATUS = re.compile(r"(?<=<!-- cairn status -->\n).*?(?=<!-- /cairn status -->\n)", re.DOTALL)
WIDTH, EDGE = 760, 24  # of a drawing, and of the ground around it
GROUND = "svg { font-variant-numeric: tabular-nums; } .ground { fill: var(--paper); }\n"
Key = tuple[Markup, int, str]  # a mark, its width, what it stands for


def pictures(material: Material, most: int) -> dict[str, str]:
    """File name to SVG.

    Args:
        most: domains and reasons that are drawn one by one.
    """
    drawn = {"bits-per-byte.svg": _scores(material, most), "data.svg": _data(material, most)}
    if material.log.steps:
        drawn["training.svg"] = _training(material)
    return drawn


def renewed(text: str, status: str, found: Sequence[Standing]) -> str:
    """A page that shows this project: what `cairn status` prints stands in its place, digests are those of the project.

    Raises ArtifactError when the page has no place for it.
    """
    if not STATUS.search(text):
        raise ArtifactError(f"{PAGE}: has no place for what `cairn status` prints: <!-- cairn status -->")
    for one in found:
        for name, digest in one.outputs.items():
            text = re.sub(rf"\b{name} [0-9a-f]{{12}}\b", f"{name} {(digest or '')[:12]}", text)
        text = re.sub(rf"\b{one.stage}: running \(stage key [0-9a-f]{{12}}", _running(one), text)
    return STATUS.sub(lambda _: f"```\n$ cairn status\n{status}```\n", text)


def draw(project: Path, checkout: Path = ROOT) -> list[Path]:
    """Write pictures and page of a checkout; where they are.

    Raises ArtifactError when a stage of the project is not up to date, or was made by other code than this.
    """
    found = standings(root=project)
    for one in found:
        if one.state not in SETTLED or one.work:
            raise ArtifactError(f"{project}: {one.stage} is {one.state.value}: `cairn run` there first")
        if one.code:
            raise ArtifactError(f"{project}: {one.stage} was made by other code than this: draw with the code that ran")
    digests = {name: digest for one in found for name, digest in one.outputs.items() if digest}
    material = read({name: project / place(name) for name in READS}, digests)
    drawn = pictures(material, cairn.recipe.load(Recipe, project / RECIPE).report.domains)
    written = {PICTURES / name: text for name, text in drawn.items()}
    written[PAGE] = renewed((checkout / PAGE).read_text(encoding="utf-8"), _status(project), found)
    for path, text in written.items():
        with written_aside(checkout / path) as aside:
            aside.write_text(text, encoding="utf-8", newline="\n")
    return list(written)


def _running(one: Standing) -> str:
    return f"{one.stage}: running (stage key {(one.key or '')[:12]}"


def _status(project: Path) -> str:
    command = [sys.executable, "-c", "from cairn.cli.main import main; main()", "status"]
    return subprocess.run(command, cwd=project, check=True, capture_output=True, encoding="utf-8").stdout


def _scores(material: Material, most: int) -> str:
    assert isinstance(material.scores, Scores)
    keys = [
        (dot(5, -4, 5, "model"), 10, "the model and its 95 % interval"),
        (line(5, -12, 5, 4, "best"), 10, "the best compressor"),
        (line(5, -9, 5, 1, "other"), 10, "the other compressors"),
    ]
    return _picture(scores.drawing(scores.shown(material.scores, most), wide=True), keys)


def _training(material: Material) -> str:
    drawn, domains = training.drawing(material)
    keys = [
        (tag("path", class_=f"curve d{index}", d="M0 -4h22"), 22, shortened(name, 300))
        for index, name in enumerate(domains)
    ]
    return _picture(drawn, keys)


def _data(material: Material, most: int) -> str:
    """What the report says in a table, with its bars."""
    found = data.outcomes(material.ledger, most)
    came, left, right, row = found[0].tally.documents, 236, 530, 26
    scale = (right - left) / max(1, came)
    columns = ((610, "documents"), (682, "share"), (WIDTH, "bytes"))
    drawn = [label(x, 12, heading, "axis", "end") for x, heading in columns]
    for index, one in enumerate(found):
        y = 24 + index * row
        strong = "name" if one.kind in ("whole", "kept") else ""
        said = f"− {one.name}" if one.kind == "dropped" else one.name
        drawn.append(label(0, y + 13, shortened(said, left - 16), strong))
        # A sliver can still be seen.
        bar = box(left + one.start * scale, y + 4, max(2.0, one.tally.documents * scale), 10, one.kind)
        if one.tally.documents:
            drawn.append(tag("g", bar, class_="bar"))
        told = (whole(one.tally.documents), share(one.tally.documents, came), size(one.tally.bytes))
        drawn += [label(x, y + 13, number, strong, "end") for (x, _), number in zip(columns, told, strict=True)]
    described = "; ".join(f"{one.name}: {whole(one.tally.documents)} documents" for one in found)
    height = 24 + len(found) * row
    return _picture(svg("data", WIDTH, height, "Documents from what came in to what was kept", described, *drawn), [])


def _picture(drawn: Markup, keys: Sequence[Key]) -> str:
    """A drawing on its ground, with its legend below."""
    viewed = re.match(r'<svg .*?viewBox="0 0 (\S+) (\S+)"|<svg viewBox="0 0 (\S+) (\S+)"', drawn.text)
    assert viewed, drawn.text[:200]
    width, height = (float(number) for number in viewed.groups() if number is not None)
    inside = f'<svg x="{EDGE}" y="{EDGE}" width="{width:g}" height="{height:g}" '
    legend, x, y = [], 0.0, height + 26
    for mark, wide, said in keys:
        room = wide + 8 + 7 * len(said)
        if x and x + room > width:
            x, y = 0.0, y + 22
        legend.append(tag("g", mark, label(wide + 8, 0, said), transform=f"translate({x + EDGE:g} {y + EDGE:g})"))
        x += room + 18
    whole_width, whole_height = width + 2 * EDGE, (y if keys else height) + 2 * EDGE
    return (
        tag(
            "svg",
            tag("style", Markup((HERE / "figures.css").read_text(encoding="utf-8") + GROUND)),
            box(0, 0, whole_width, whole_height, "ground"),
            Markup(drawn.text.replace("<svg ", inside, 1)),
            *legend,
            xmlns="http://www.w3.org/2000/svg",
            viewBox=f"0 0 {whole_width:g} {whole_height:g}",
        ).text
        + "\n"
    )


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: python tools/pictures.py PROJECT, the folder of a project whose run is done", file=sys.stderr)
        return 2
    for path in draw(Path(sys.argv[1])):
        print(f"{path} written")
    return 0


if __name__ == "__main__":
    sys.exit(guard(main))
