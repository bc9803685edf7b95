"""The graph of an audit as an SVG drawing: artifacts and stages, the objects of a source as one box, verdicts in words.

What is beside the way back, such as code and locks, is in the tables of the page and not drawn.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from cairn.audit.document import counts
from cairn.audit.layout import Layout, Measures, layout
from cairn.audit.verdicts import WRONG, Audit, Finding, Verdict
from components.report.markup import Markup, number, tag
from components.report.svg import box, label, marked, shortened

WIDE = Measures(width=196, height=58, gap=22, drop=30)
NARROW = Measures(width=150, height=58, gap=8, drop=24, lane=8)
EDGE = 2  # pixels around the drawing, so that no line is cut


@dataclass
class _Box:
    """One box: a node, all objects of a source, or all signatures of a model."""

    title: str
    below: str
    kind: str
    findings: list[Finding] = field(default_factory=list)


def drawing(audit: Audit, name: str, size: Measures, class_: str) -> Markup:
    """The drawing. `name` is unique on the page."""
    boxes, edges = _merged(audit)
    placed = layout(list(boxes), list(edges), size)
    width, height = placed.width + 2 * EDGE, placed.height + 2 * EDGE
    wrong = sum(one.verdict in WRONG for drawn in boxes.values() for one in drawn.findings)
    described = f"{len(boxes)} boxes in layers, from what was audited down to the sources; {wrong} findings are wrong."
    return tag(
        "svg",
        tag("title", "What it was made from", id=f"{name}-title"),
        tag("desc", described, id=f"{name}-desc"),
        *(_edge(placed, pair, findings) for pair, findings in edges.items()),
        *(_box(placed.nodes[one], drawn, size) for one, drawn in boxes.items()),
        viewBox=f"0 0 {number(width)} {number(height)}",
        # Its own size, not that of the page: what is shrunk to fit a telephone cannot be read there.
        width=number(width),
        height=number(height),
        id=name,
        class_=f"graph {class_}",
        role="img",
        aria_labelledby=f"{name}-title {name}-desc",
    )


def colour(findings: Sequence[Finding]) -> str:
    """The class of the worst of some verdicts."""
    found = {one.verdict for one in findings}
    if found & WRONG:
        return "bad"
    for verdict in (Verdict.REPRODUCED, Verdict.CLOSE, Verdict.BYTES_MATCH, Verdict.ATTESTED):
        if verdict in found:
            return verdict.value.lower()
    return "unseen"


def words(findings: Sequence[Finding]) -> str:
    """The verdicts in words, the wrong ones first."""
    told = sorted(counts(findings).items(), key=lambda pair: (Verdict(pair[0]) not in WRONG, pair[0]))
    return ", ".join(f"{verdict} ×{count:,}" if count > 1 else verdict for verdict, count in told) or "not looked at"


def _merged(audit: Audit) -> tuple[dict[str, _Box], dict[tuple[str, str], list[Finding]]]:
    """The boxes that are drawn, by id, and the edges between them."""
    boxes: dict[str, _Box] = {}
    into: dict[str, str] = {}
    count: dict[str, int] = {}
    signed = {edge.head: edge.tail for edge in audit.edges if edge.role == "signed by"}
    for node in audit.nodes.values():
        if node.kind in ("artifact", "stage", "record"):
            group, drawn = node.id, _Box(node.name, node.digest[:12], node.kind)
        elif node.kind == "object":
            group, drawn = f"source:{node.source}", _Box(node.source or "objects", "object", "source")
        elif node.kind == "signature":
            group, drawn = f"signatures:{signed.get(node.id)}", _Box("signed", "signature", "source")
        else:
            continue
        into[node.id] = group
        count[group] = count.get(group, 0) + 1
        boxes.setdefault(group, drawn).findings.extend(node.findings)
    for group, drawn in boxes.items():
        if drawn.kind == "source":
            drawn.below = f"{count[group]:,} {drawn.below}{'s' if count[group] > 1 else ''}"
    edges: dict[tuple[str, str], list[Finding]] = {}
    for edge in audit.edges:
        if edge.tail in into and edge.head in into:
            head = audit.nodes[edge.head]
            # A claim holds no better than what makes it.
            found = [*edge.findings, *(head.findings if head.kind in ("record", "signature") else ())]
            edges.setdefault((into[edge.tail], into[edge.head]), []).extend(found)
    joined = {one for pair in edges for one in pair} | {audit.target}
    return {one: drawn for one, drawn in boxes.items() if one in joined}, edges


def _box(corner: tuple[float, float], drawn: _Box, size: Measures) -> Markup:
    x, y = corner[0] + EDGE, corner[1] + EDGE
    said = words(drawn.findings)
    room = size.width - 12
    small = 13 / 11 * room  # what `shortened` would allow in letters of 13 pixels
    shape = tag(
        "rect",
        x=number(x),
        y=number(y),
        width=number(size.width),
        height=number(size.height),
        rx=number(size.height / 2 if drawn.kind == "stage" else 5),
        class_=f"node {colour(drawn.findings)}",
    )
    middle = x + size.width / 2
    return marked(
        f"{drawn.title} {drawn.below}: {said}",
        shape,
        label(middle, y + 19, _fitting(drawn.title, room), "name", "middle"),
        label(middle, y + 34, shortened(drawn.below, small), "tick small", "middle"),
        label(middle, y + 49, _fitting(said, small), f"verdict {colour(drawn.findings)}", "middle"),
    )


def _fitting(said: str, room: float) -> str:
    """As many parts of a list as there is room for, and how many there are besides; no word is cut that need not be."""
    parts = said.split(", ")
    for left in range(len(parts)):
        kept = ", ".join(parts[: len(parts) - left])
        told = f"{kept} +{left}" if left else kept
        if shortened(told, room) == told:
            return told
    return shortened(said, room)


def _edge(placed: Layout, pair: tuple[str, str], findings: Sequence[Finding]) -> Markup:
    points = [(x + EDGE, y + EDGE) for x, y in placed.edges[pair]]
    (x, y), *rest = points
    path = f"M{_at(x, y)}"
    for index, (to_x, to_y) in enumerate(rest):
        if index % 2:  # past a layer, straight down
            path += f"L{_at(to_x, to_y)}"
        else:
            half = (y + to_y) / 2
            path += f"C{_at(x, half)} {_at(to_x, half)} {_at(to_x, to_y)}"
        x, y = to_x, to_y
    bad = [one for one in findings if one.verdict in WRONG]
    line = tag("path", d=path, class_=f"link {'bad' if bad else ''}".strip())
    if not bad:
        return line
    (x1, y1), (x2, y2) = points[0], points[1]
    said = words(bad)
    width = 9.0 * len(said)
    middle, height = (x1 + x2) / 2, (y1 + y2) / 2
    plate = box(middle - width / 2, height - 9, width, 16, "plate")
    return marked(
        "; ".join(one.said for one in bad), line, plate, label(middle, height + 4, said, "verdict bad", "middle")
    )


def _at(x: float, y: float) -> str:
    return f"{number(round(x, 1))} {number(round(y, 1))}"
