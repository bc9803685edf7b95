"""An audit as a text tree: what was asked about at the root, what it was made from below, each thing once."""

import re
from collections.abc import Iterator
from typing import Any

from rich.text import Text

from cairn.audit.document import counts
from cairn.audit.verdicts import WRONG, Audit, Edge, Finding, Node, Verdict
from cairn.errors import one_line
from components.report.markup import visible

SHOWN = 12  # details below a finding
TREE = ("artifact", "stage", "signature", "record")  # what is on the way back
IN_STORE = re.compile(r"\b((?:attestations|stages|pins|signatures|runs)/)([0-9a-f]{64})(?:/([0-9a-f]{64}))?")
STYLES = {
    Verdict.BYTES_MATCH: "green",
    Verdict.REPRODUCED: "bold green",
    Verdict.CLOSE: "green",
    Verdict.ATTESTED: "cyan",
}


def lines(audit: Audit) -> Iterator[Text]:
    """The whole answer."""
    if (other := stranger(audit)) is not None:
        yield Text(shown(other), "bold red")
        yield Text()
    yield from _Tree(audit).lines()
    yield from _done_again(audit)
    yield Text()
    wrong = audit.wrong
    if wrong:
        yield Text(f"What is wrong ({len(wrong)})", "bold")
        told, left = at_fault(audit, SHOWN)
        for holder, finding in told:
            yield from _wrong(audit, holder, finding)
        if left:
            yield Text(f"  and {left:,} more of objects (--json lists all)")
    else:
        yield Text("Nothing is wrong with what was looked at.", "bold green")
    yield Text()
    yield Text("What this audit cannot know", "bold")
    for limit in audit.limits:
        yield Text(f"  {shown(limit)}")


def _done_again(audit: Audit) -> Iterator[Text]:
    """What a replay found, or why there was none."""
    if audit.replayed:
        yield Text()
        yield Text("What was done again", "bold")
    for identifier, finding in audit.replayed.items():
        line = Text("  ").append(finding.verdict.value, STYLES.get(finding.verdict, "bold red"))
        yield line.append(f"  {shown(audit.nodes[identifier].name)}: {shown(finding.said)}")
        if finding.verdict not in WRONG:  # else they are told under what is wrong
            yield from (Text(f"      {shown(detail)}", "dim") for detail in finding.details[:SHOWN])


def stranger(audit: Audit) -> str | None:
    """That what was asked about is not what was attested, and what is told instead; None where it is."""
    target = audit.nodes[audit.target]
    if audit.holds in ("", target.digest):
        made = any(edge.tail == target.id and audit.nodes[edge.head].kind == "stage" for edge in audit.edges)
        asked = audit.asked or target.name
        return None if made else f"{asked} ({target.digest[:12]}) is nothing that a trusted attestation tells of."
    return (
        f"{audit.asked} ({audit.holds[:12]}) is not what was attested. Below is the artifact that is nearest to it, "
        f"{target.name} {target.digest[:12]}."
    )


def shown(said: str) -> str:
    """Text on one line, in which nothing can steer a terminal."""
    return visible(abridged(one_line(said)))


def abridged(said: str) -> str:
    """Text in which the places of records in a store are as short as a person reads them: 12 digits of each digest."""

    def short(found: re.Match[str]) -> str:
        return found[1] + found[2][:12] + (f"/{found[3][:12]}" if found[3] else "")

    return IN_STORE.sub(short, said)


def unrolled(lines: Iterator[Any]) -> Iterator[Any]:
    """The lines of a tree whose iterators give lines and iterators of lines below them. Python's own stack would end a
    chain of a few hundred stages."""
    stack = [lines]
    while stack:
        line = next(stack[-1], None)
        if line is None:
            stack.pop()
        elif isinstance(line, Iterator):
            stack.append(line)
        else:
            yield line


class _Tree:
    """The tree of one audit."""

    def __init__(self, audit: Audit) -> None:
        self.audit = audit
        self.below: dict[str, list[Edge]] = {}
        for edge in audit.edges:
            self.below.setdefault(edge.tail, []).append(edge)
        self.drawn: set[str] = set()
        self.told: dict[str, dict[str, None]] = {}
        """By source, what its snapshot says of it: an ordered set."""

    def lines(self) -> Iterator[Text]:
        root = self.audit.nodes[self.audit.target]
        yield from unrolled(self._node(root, None, "", ""))
        others = [one for one in self.audit.nodes.values() if one.id not in self.drawn and one.kind != "object"]
        for index, node in enumerate(others):
            if index == 0:
                yield Text()
                yield Text("Besides: code, locks of packages, and what else the project and its store keep", "bold")
            yield self._line(node, None, "  ", "")

    def _node(self, node: Node, edge: Edge | None, before: str, below: str) -> "Iterator[Text | Iterator[Any]]":
        """A node and what is below it: lines, or lines deeper in it.

        Args:
            before, below: what is drawn to the left of the node, and of what is below it.
        """
        if node.id in self.drawn:
            yield self._line(node, edge, before, " (above)")
            return
        self.drawn.add(node.id)
        yield self._line(node, edge, before, "")
        edges = [one for one in self.below.get(node.id, ()) if self._kind(one) in TREE]
        sources = self._sources(node)
        for index, one in enumerate(edges):
            last = index == len(edges) - 1 and not sources
            drawn = below + ("└─ " if last else "├─ ")
            yield self._node(self.audit.nodes[one.head], one, drawn, below + ("   " if last else "│  "))
        for index, (source, objects) in enumerate(sources.items()):
            last = index == len(sources) - 1
            yield from self._objects(
                source, objects, below + ("└─ " if last else "├─ "), below + ("   " if last else "│  ")
            )

    def _line(self, node: Node, edge: Edge | None, before: str, after: str) -> Text:
        line = Text(before).append(shown(node.name), "bold" if node.kind == "artifact" else "")
        if node.kind in ("artifact", "stage", "code", "lock", "record"):
            line.append(f" {node.digest[:12]}", "dim")
        if node.given:
            line.append(" given from outside", "dim")
        if after:
            return line.append(after, "dim")
        line.append("  ")
        line.append_text(verdicts(node.findings))
        bad = [one for one in edge.findings if one.verdict in WRONG] if edge is not None else []
        if bad:
            line.append(f"  {edge.role if edge else ''}: ").append_text(verdicts(bad))
        return line

    def _sources(self, stage: Node) -> dict[str, list[Node]]:
        """The objects that a stage read, by source."""
        found: dict[str, list[Node]] = {}
        for edge in self.below.get(stage.id, ()):
            if self._kind(edge) == "object":
                node = self.audit.nodes[edge.head]
                found.setdefault(node.source, []).append(node)
                for finding in edge.findings:
                    self.told.setdefault(node.source, {})[finding.said] = None
        return found

    def _objects(self, source: str, nodes: list[Node], before: str, below: str) -> Iterator[Text]:
        """A line for all objects of a source, and one below it for each that is wrong."""
        line = Text(f"{before}{len(nodes):,} object{'s' if len(nodes) > 1 else ''} of {shown(source) or 'no source'}  ")
        if all(node.id in self.drawn for node in nodes):
            yield line.append("(above)", "dim")
            return
        yield line.append_text(verdicts([one for node in nodes for one in node.findings]))
        for said in self.told.get(source, ()):
            yield Text(f"{below}{shown(said)}", "dim")
        for node in nodes:
            if _is_wrong(node):
                yield self._line(node, None, f"{below}- ", "")
        self.drawn |= {node.id for node in nodes}

    def _kind(self, edge: Edge) -> str:
        return self.audit.nodes[edge.head].kind


def verdicts(findings: list[Finding]) -> Text:
    """The verdicts of some findings, each in its colour and with how often it was given."""
    line = Text()
    for name, count in counts(findings).items():
        line.append(" " if line else "")
        line.append(name, STYLES.get(Verdict(name), "bold red"))
        line.append(f" ×{count:,}" if count > 1 else "", "dim")
    return line if line else Text("not looked at", "dim")


def at_fault(audit: Audit, objects: int) -> tuple[list[tuple[Node | Edge, Finding]], int]:
    """What is wrong, with at most so many findings on objects of sources, which come last: a lost tree would hide the
    rest behind thousands. And how many were left out."""
    of_objects = [one for one in audit.wrong if isinstance(one[0], Node) and one[0].kind == "object"]
    others = [one for one in audit.wrong if not (isinstance(one[0], Node) and one[0].kind == "object")]
    return others + of_objects[:objects], len(of_objects[objects:])


def without_name(name: str, said: str) -> str:
    """What was said of something, without its name where that stands first."""
    return said.removeprefix(f"{name}: ")


def _wrong(audit: Audit, holder: Node | Edge, finding: Finding) -> Iterator[Text]:
    name = named(audit, holder)
    said = f"{name}: {without_name(name, finding.said)}"
    yield Text("  ").append(finding.verdict.value, "bold red").append(f"  {shown(said)}")
    for detail in finding.details[:SHOWN]:
        yield Text(f"      {shown(detail)}")
    if len(finding.details) > SHOWN:
        yield Text(f"      and {len(finding.details) - SHOWN} more (--json lists all)")


def named(audit: Audit, holder: Node | Edge) -> str:
    """What a person would call a node or an edge."""
    if isinstance(holder, Node):
        return holder.name
    return f"{audit.nodes[holder.tail].name} {holder.role} {audit.nodes[holder.head].name}"


def _is_wrong(node: Node) -> bool:
    return any(one.verdict in WRONG for one in node.findings)
