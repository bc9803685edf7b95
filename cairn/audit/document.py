"""An audit as JSON: the whole graph, in one order, so that two audits of the same things are the same but for what they
found. `docs/audit.md` says what each field means."""

from collections.abc import Iterable
from typing import Any

from cairn.audit.verdicts import Audit, Edge, Finding, Node

FORMAT = "cairn-audit-v1"


def document(audit: Audit, store: str, keys: Iterable[str]) -> dict[str, Any]:
    """The audit as a JSON value.

    Args:
        store: URL of the store that was asked.
        keys: ids of the keys that were trusted.
    """
    target = audit.nodes[audit.target]
    return {
        "format": FORMAT,
        "target": audit.target,
        "asked": {"said": audit.asked, "digest": audit.holds or target.digest},
        "ok": not audit.wrong,
        "store": store,
        "keys": sorted(keys),
        "verdicts": counts(finding for _, finding in audit.findings()),
        "nodes": [_node(node) for node in sorted(audit.nodes.values(), key=lambda one: one.id)],
        "edges": [_edge(edge) for edge in sorted(audit.edges, key=lambda one: (one.tail, one.head, one.role))],
        "wrong": [{"about": about(holder), **_finding(finding)} for holder, finding in audit.wrong],
        "replayed": [
            {"about": [one], **_finding(finding), "remains": finding.remains} for one, finding in audit.replayed.items()
        ],
        "strangers": {where: list(keys) for where, keys in sorted(audit.strangers.items())},
        "limits": audit.limits,
    }


def counts(findings: Iterable[Finding]) -> dict[str, int]:
    """How often each verdict was given."""
    found: dict[str, int] = {}
    for finding in findings:
        found[finding.verdict.value] = found.get(finding.verdict.value, 0) + 1
    return dict(sorted(found.items()))


def about(holder: Node | Edge) -> list[str]:
    """The id of a node; of an edge, those of both its ends."""
    return [holder.id] if isinstance(holder, Node) else [holder.tail, holder.head]


def _node(node: Node) -> dict[str, Any]:
    said: dict[str, Any] = {"id": node.id, "kind": node.kind, "name": node.name, "digest": node.digest}
    if node.given:
        said["given"] = True
    if node.source:
        said["source"] = node.source
    return {**said, "findings": [_finding(one) for one in node.findings]}


def _edge(edge: Edge) -> dict[str, Any]:
    findings = [_finding(one) for one in edge.findings]
    return {"tail": edge.tail, "head": edge.head, "role": edge.role, "findings": findings}


def _finding(finding: Finding) -> dict[str, Any]:
    return {"verdict": finding.verdict.value, "said": finding.said, "details": list(finding.details)}
