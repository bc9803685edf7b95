"""What no audit can know, told with each: a verdict is worth no more than what it rests on."""

from collections.abc import Mapping

from cryptography.hazmat.primitives.asymmetric import ec

from cairn.audit.verdicts import Audit, Node, Verdict


def limits(audit: Audit, keys: Mapping[str, ec.EllipticCurvePublicKey], read_bytes: bool) -> list[str]:
    """One sentence for each thing that this audit took on trust."""
    nodes = list(audit.nodes.values())
    stages = [node for node in nodes if node.kind == "stage"]
    again = [one for one, finding in audit.replayed.items() if finding.verdict in (Verdict.REPRODUCED, Verdict.CLOSE)]
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
    for one in again:
        if remains := audit.replayed[one].remains:
            said.append(f"Whether all of {audit.nodes[one].name} was done as attested: {remains}.")
    if audit.strangers:
        by = ", ".join(sorted({key[:12] for keys in audit.strangers.values() for key in keys}))
        records = "record of another signer" if len(audit.strangers) == 1 else "records of other signers"
        said.append(
            f"What others say of the same artifacts: {len(audit.strangers):,} {records} ({by}) stood beside those "
            "that are believed; these keys are not trusted, and what they signed was not believed."
        )
    if not any(map(_is_signature, nodes)) and any(map(_is_model, nodes)):
        said.append(
            "Whether the model ever was signed: no signature is there, and a removed one leaves nothing behind."
        )
    if given := [node for node in nodes if node.given]:
        named = ", ".join(f"{node.name} {node.digest[:12]}" for node in given)
        said.append(
            f"What made the weights that were given from outside ({named}), and of which text: their bytes are those "
            "that training began with, and nothing else is known of them."
        )
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


def _is_signature(node: Node) -> bool:
    return node.kind == "signature"


def _is_model(node: Node) -> bool:
    return node.kind == "artifact" and node.name == "model"
