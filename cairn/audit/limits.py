"""What no audit can know, told with each: a verdict is worth no more than what it rests on."""

from collections.abc import Mapping

from cryptography.hazmat.primitives.asymmetric import ec

from cairn.audit.verdicts import Audit, Verdict


def limits(audit: Audit, keys: Mapping[str, ec.EllipticCurvePublicKey], read_bytes: bool) -> list[str]:
    """One sentence for each thing that this audit took on trust."""
    stages = [node for node in audit.nodes.values() if node.kind == "stage"]
    again = {one for one, finding in audit.replayed.items() if finding.verdict in (Verdict.REPRODUCED, Verdict.CLOSE)}
    told = [
        node
        for node in stages
        if node.id not in again and any(one.verdict is Verdict.ATTESTED for one in node.findings)
    ]
    trusted = ", ".join(sorted(key[:12] for key in keys)) or "none"
    said = [
        f"Who holds the trusted keys ({trusted}), and whether anybody else has them.",
        "When anything happened: times are claimed, for no timestamp authority signed them.",
        "Whether there was something else: an attestation proves what went in, not that nothing else did.",
    ]
    if told:
        names = ", ".join(dict.fromkeys(node.name for node in told))
        said.append(
            f"Whether the work was done as attested, where it was not done again: of {names} there is the word of "
            "whoever holds the key."
        )
    if again:
        said.append("Whether what a replay did not draw came out so too: how much each did stands beside it.")
    if any(node.kind == "object" for node in audit.nodes.values()):
        said.append("Whether the licences are what the recipe says: they are recorded, not judged.")
    codes = {node.digest for node in audit.nodes.values() if node.kind == "code" and node.name == "cairn"}
    if len(codes) > 1:
        said.append(
            f"Whether {len(codes)} different states of the code make the same bytes, as the versions promise "
            "(--strict-code takes it for a fault)."
        )
    if codes:
        said.append("Whether the code did what it seems to: that takes somebody who reads it.")
    if not read_bytes:
        said.append("Whether the bytes are right: they were not read (--no-bytes).")
    return said
