"""An audit as one HTML page that needs nothing else: what is wrong, the graph, what cannot be known, every verdict."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import components.report.page
from cairn.audit.document import counts
from cairn.audit.drawing import NARROW, WIDE, colour, drawing, words
from cairn.audit.text import abridged, at_fault, named, stranger, without_name
from cairn.audit.verdicts import WRONG, Audit, Edge, Finding, Node, Verdict
from components.report.markup import Markup, breakable, document, join, tag
from components.report.table import Cell, Column, table

FORMAT = "cairn-audit-page-v1"
DETAILS = 50  # of one finding; the JSON has all
MEANINGS = {
    Verdict.BYTES_MATCH: "read and hashed now: they are the bytes of the digest",
    Verdict.ATTESTED: "signed by a trusted key; what it speaks of was not looked at",
    Verdict.REPRODUCED: "done again now, to the same bytes",
    Verdict.CLOSE: "done again now, to within the tolerance that is told",
    Verdict.MISSING: "spoken of, and not to be had",
    Verdict.TAMPERED: "there, and not what its digest or its signature says",
    Verdict.UNSIGNED: "signed by nobody who is trusted",
    Verdict.INCOMPLETE: "signed, and silent on something that it has to say",
    Verdict.CONFLICT: "two claims that cannot both be true",
}


def page(audit: Audit, store: str, keys: Iterable[str]) -> str:
    """The whole page. The same audit gives the same bytes; nothing is loaded from anywhere, and there is no script.

    Args:
        store: URL of the store that was asked.
        keys: ids of the keys that were trusted.
    """
    reports = Path(components.report.page.__file__).parent
    files = [reports / "figures.css", reports / "page.css", Path(__file__).parent / "page.css"]
    style = Markup("".join(path.read_text(encoding="utf-8") for path in files))
    return document(
        f"Audit of {' '.join(_subject(audit))}",
        FORMAT,
        style,
        _header(audit, audit.nodes[audit.target], store, sorted(keys)),
        _faults(audit),
        _done_again(audit),
        _graph(audit),
        _limits(audit),
        _tables(audit),
    )


def _header(audit: Audit, target: Node, store: str, keys: Sequence[str]) -> Markup:
    wrong = len(audit.wrong)
    objects = sum(node.kind == "object" for node in audit.nodes.values())
    stages = sum(node.kind == "stage" for node in audit.nodes.values())
    lead = (
        f"{wrong} {'finding is' if wrong == 1 else 'findings are'} wrong."
        if wrong
        else "Nothing is wrong with what was looked at."
    )
    found = counts(finding for _, finding in audit.findings())
    rows: list[list[Cell]] = [
        [_verdict(verdict), f"{found[verdict.value]:,}", meaning]
        for verdict, meaning in MEANINGS.items()
        if verdict.value in found
    ]
    asked = [("path" if audit.holds else "digest", audit.asked or target.digest)]
    asked += [("sha256 of what lies there", audit.holds)] if audit.holds else []
    asked += [("nearest artifact", target.digest)] if audit.holds not in ("", target.digest) else []
    asked += [] if audit.holds or audit.asked == target.digest else [("sha256", target.digest)]
    asked += [("store", store), *(("trusted key", key) for key in keys)]
    name, digest = _subject(audit)
    other = stranger(audit)
    return tag(
        "header",
        tag("p", "Audit", class_="kicker"),
        tag("h1", breakable(name), " ", tag("span", digest, class_="digest-of")),
        *([tag("p", tag("strong", breakable(other)), class_="lead other")] if other else []),
        tag("p", f"{lead} Walked back over {stages} runs of stages to {objects:,} objects of sources.", class_="lead"),
        tag(
            "div",
            table("Verdicts", [Column("verdict", "word"), Column("how often"), Column("meaning", "word")], rows),
            class_="verdicts",
        ),
        table(
            "What was asked",
            [Column("", "word"), Column("", "digest")],
            [[name, tag("code", breakable(value))] for name, value in asked],
        ),
    )


def _subject(audit: Audit) -> tuple[str, str]:
    """What the page is about: a name and the first digits of a digest. Of a path that nobody attested, its own."""
    target = audit.nodes[audit.target]
    if audit.holds not in ("", target.digest):
        return audit.asked, audit.holds[:12]
    return target.name, target.digest[:12]


def _faults(audit: Audit) -> Markup:
    told, left = at_fault(audit, DETAILS)
    if not told:
        return Markup("")
    items = []
    for holder, finding in told:
        shown = [tag("li", breakable(abridged(one))) for one in finding.details[:DETAILS]]
        if len(finding.details) > DETAILS:
            shown.append(tag("li", f"and {len(finding.details) - DETAILS:,} more"))
        items.append(
            tag(
                "li",
                _verdict(finding.verdict),
                " ",
                tag("strong", breakable(named(audit, holder))),
                " ",
                breakable(abridged(without_name(named(audit, holder), finding.said))),
                *([tag("ul", *shown)] if shown else []),
            )
        )
    if left:
        items.append(tag("li", f"and {left:,} more of objects, which are in the tables below"))
    return tag("section", tag("h2", "What is wrong"), tag("ul", *items, class_="faults"))


def _done_again(audit: Audit) -> Markup:
    """What a replay found, or why there was none."""
    if not audit.replayed:
        return Markup("")
    rows: list[list[Cell]] = []
    for one, finding in audit.replayed.items():
        stage = join([tag("div", audit.nodes[one].name), _verdict(finding.verdict)])
        details = [tag("li", breakable(detail)) for detail in finding.details[:DETAILS]]
        rows.append([stage, join([_said([finding]), *([tag("ul", *details)] if details else [])])])
    columns = [Column("stage", "word"), Column("what came of it", "word")]
    return tag("section", tag("h2", "What was done again"), table("Replay", columns, rows))


def _graph(audit: Audit) -> Markup:
    said = (
        "What was audited is at the top; below each thing is what it was made by and from, down to the sources. Round "
        "boxes are runs of stages. A dashed line is a claim that does not hold."
    )
    drawn = [drawing(audit, "graph", WIDE, "wide"), drawing(audit, "graph-narrow", NARROW, "narrow")]
    scrolled = tag("div", *drawn, class_="scroll", tabindex="0", role="region", aria_label="The graph")
    return tag("section", tag("h2", "What it was made from"), tag("p", said), scrolled)


def _limits(audit: Audit) -> Markup:
    return tag(
        "section",
        tag("h2", "What this audit cannot know"),
        tag("ul", *(tag("li", limit) for limit in audit.limits), class_="limits"),
    )


def _tables(audit: Audit) -> Markup:
    nodes = sorted(audit.nodes.values(), key=lambda one: (not _is_wrong(one.findings), one.kind == "object"))
    main = [one for one in nodes if one.kind != "object" or _is_wrong(one.findings)]
    rest = [one for one in nodes if one.kind == "object" and not _is_wrong(one.findings)]
    edges = sorted(audit.edges, key=lambda one: not _is_wrong(one.findings))
    to_objects = {node.id for node in rest}
    main_edges = [one for one in edges if one.head not in to_objects or _is_wrong(one.findings)]
    rest_edges = [one for one in edges if one.head in to_objects and not _is_wrong(one.findings)]
    parts = [
        tag("h2", "Every verdict"),
        table("Nodes", NODE_COLUMNS, [_row(one) for one in main]),
        table("Edges", EDGE_COLUMNS, [_edge_row(audit, one) for one in main_edges]),
    ]
    if rest:
        parts.append(
            _folded(f"{len(rest):,} objects of sources", table("Objects", NODE_COLUMNS, [_row(one) for one in rest]))
        )
        rows = [_edge_row(audit, one) for one in rest_edges]
        parts.append(_folded(f"{len(rest_edges):,} edges to them", table("Edges to objects", EDGE_COLUMNS, rows)))
    return tag("section", *parts, class_="every")


NODE_COLUMNS = [
    Column("node", "word"),
    Column("kind", "word"),
    Column("verdicts", "word"),
    Column("what was found", "word"),
]
EDGE_COLUMNS = [Column("edge", "word"), Column("verdicts", "word"), Column("what was found", "word")]


def _row(node: Node) -> list[Cell]:
    name = join([breakable(node.name), " ", tag("code", node.digest[:12])])
    return [name, node.kind, _verdicts(node.findings), _said(node.findings)]


def _edge_row(audit: Audit, edge: Edge) -> list[Cell]:
    return [breakable(named(audit, edge)), _verdicts(edge.findings), _said(edge.findings)]


def _verdicts(findings: Sequence[Finding]) -> Markup:
    return tag("span", words(findings), class_=f"said {colour(findings)}")


def _verdict(verdict: Verdict) -> Markup:
    return tag("span", verdict.value, class_=f"said {colour([Finding(verdict, '')])}")


def _said(findings: Sequence[Finding]) -> Markup:
    return join([tag("div", breakable(abridged(one.said))) for one in findings])


def _folded(summary: str, content: Markup) -> Markup:
    return tag("details", tag("summary", summary), content)


def _is_wrong(findings: Sequence[Finding]) -> bool:
    return any(one.verdict in WRONG for one in findings)
