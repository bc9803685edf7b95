"""`cairn lineage`: what an artifact was made from, what was made from it, and what two artifacts differ in."""

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cairn.cli.asked import At, Keys
from cairn.cli.output import AsJson, moment, print_json, short, show, table, written
from cairn.errors import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cairn.lineage.graph import Lineage, Node
    from cairn.lineage.store import Store
    from pipelines.documents import Changes

app = typer.Typer(name="lineage", help="What was made from what, as the attestations tell it.", no_args_is_help=True)
WHICH = "An artifact's path, at least 6 digits of its digest, or a Git revision."
SHOWN = 8  # objects of one stage

Digest = Annotated[str, typer.Argument(help=WHICH, show_default=False)]
DigestOrObject = Annotated[
    str, typer.Argument(help=f"{WHICH} Also the sha256 of a source's object.", show_default=False)
]


@app.command("back")
def back(digest: Digest, store: At = None, key: Keys = None, json: AsJson = False) -> None:
    """Show every stage, artifact and source that an artifact was made from."""
    from cairn.cli.asked import believed_keys, named_store
    from cairn.lineage.graph import ancestors
    from pipelines.naming import meant

    asked = meant(digest, store=named_store(store))
    found = ancestors(asked.store, asked.digest, believed_keys(key)).back(asked.digest)
    _show(found, asked.store, "back", json)


@app.command("forward")
def forward(digest: DigestOrObject, store: At = None, key: Keys = None, json: AsJson = False) -> None:
    """Show every stage and artifact that an artifact or a source's object went into."""
    from cairn.cli.asked import believed_keys, named_store
    from cairn.lineage.graph import scan
    from pipelines.naming import meant

    keys = believed_keys(key)
    asked = meant(digest, lambda at: scan(at, keys), named_store(store))
    _show(scan(asked.store, keys).forward(asked.digest), asked.store, "forward", json)


@app.command("diff")
def diff(
    first: Digest,
    second: Annotated[str, typer.Argument(help=f"{WHICH} Default: this project.")] = ".",
    store: At = None,
    key: Keys = None,
    json: AsJson = False,
) -> None:
    """Show where two artifacts part: recipe, versions, packages, code, machine, sources, and documents with reasons."""
    from cairn.cli.asked import believed_keys, named_store
    from cairn.lineage.places import Places
    from pipelines.ancestry import ancestral_differences, ancestry, surrounding_differences
    from pipelines.documents import changes
    from pipelines.naming import meant

    keys = believed_keys(key)
    sides = [meant(name, store=named_store(store)) for name in (first, second)]
    one, other = (ancestry(side.store, side.digest, keys) for side in sides)
    for side, run in zip(sides, (one, other), strict=True):
        if not run.stages:
            unbelieved = len(side.store.list(f"attestations/{side.digest}"))
            raise ArtifactError(f"{side.name}: {_nothing('says how it was made', side.store, unbelieved)}")
    kinds = [run.name_of(side.digest) for side, run in zip(sides, (one, other), strict=True)]
    differing = (*ancestral_differences(one, other), *surrounding_differences(one, other))
    with tempfile.TemporaryDirectory() as scratch:
        fetch, fetch_other = (
            Places(side.store, Path(scratch, str(number)), side.places()) for number, side in enumerate(sides)
        )
        documents = changes(one, other, fetch, fetch_other)
    if json:
        names = [
            {"name": side.name, "digest": side.digest, "artifact": kind}
            for side, kind in zip(sides, kinds, strict=True)
        ]
        told = {"differences": [asdict(each) for each in differing], "documents": asdict(documents)}
        print_json({"first": names[0], "second": names[1], **told})
        return
    if kinds[0] != kinds[1]:
        which = " and ".join(f"{kind} {short(side.digest)}" for side, kind in zip(sides, kinds, strict=True))
        both = ", ".join(name for name in one.stages if name in other.stages) or "none"
        print(f"{which} are different artifacts: compared are the stages that led to both: {both}")
    if differing:
        shown = table("what differs", *("this project" if name == "." else name for name in (first, second)))
        for each in differing:
            say = short if each.part in ("output", "code") else written
            label = each.name if each.part in ("recipe", "output") else f"{each.part} {each.name}"
            shown.add_row(label, say(each.then), say(each.now))
        show(shown)
    elif kinds[0] != kinds[1]:
        print("those stages are alike: the same recipe, versions, packages, code, machine and bytes")
    else:
        print("made alike: the same recipe, versions, packages, code, machine and bytes")
    _show_documents(documents)


def _show_documents(found: "Changes") -> None:
    from cairn.audit.text import shown

    for source, objects in found.sources.items():
        for kind, uris in (("added", objects.added), ("removed", objects.removed), ("changed", objects.changed)):
            if uris:
                more = f", and {len(uris) - SHOWN} more" if len(uris) > SHOWN else ""
                print(shown(f"source {source}: {len(uris):,} objects {kind}: {', '.join(uris[:SHOWN])}{more}"))
    if found.unread:
        print(f"documents were not compared: {found.unread}")
        return
    print(f"\ndocuments: {found.first:,} and {found.second:,}, of which {found.both:,} in both")
    if not found.reasons:
        return
    reasons = table("documents", "number >", "why", "such as")
    for reason in found.reasons:
        such_as = ", ".join(f"{short(one.document)} of {shown(one.origin)}" for one in reason.samples[:2])
        reasons.add_row(reason.kind, f"{reason.documents:,}", reason.why, such_as)
    show(reasons)


def _nothing(what: str, store: "Store", unbelieved: int) -> str:
    """That nobody who is believed says something, and the way out."""
    from cairn.lineage.signing import home

    if not unbelieved:
        return f"no attestation in {store} {what}: --store names another store"
    return (
        f"no trusted attestation in {store} {what}, and {unbelieved} are signed by no trusted key: name the public key "
        f"of the signer with --key, or put it into {home() / 'trusted'}"
    )


def _show(found: "Lineage", store: "Store", way: str, json: bool) -> None:
    if json:
        edges = [[above, below] for above, ones in found.below.items() for below in ones]
        nodes = [asdict(node) for node in found.nodes.values()]
        print_json({"target": found.target, "way": way, "nodes": nodes, "edges": edges, "distrusted": found.distrusted})
        return
    from cairn.audit.text import unrolled

    print(_label(found.nodes[found.target]))
    for line in unrolled(_branches(found, found.target, "", {found.target})):
        print(line)
    if not found.below.get(found.target):
        what = "says how it was made" if way == "back" else "has it as an input"
        print(_nothing(what, store, found.distrusted))
    elif found.distrusted:
        print(f"{found.distrusted} attestations are signed by no trusted key and were passed over")


def _branches(found: "Lineage", node: str, indent: str, shown: set[str]) -> "Iterator[str | Iterator[Any]]":
    """The tree below a node, a line each, or lines deeper in it; what was shown before is not unfolded again."""
    below = found.below.get(node, [])
    objects = [one for one in below if found.nodes[one].kind == "object"]
    others = [one for one in below if found.nodes[one].kind != "object"]
    for number, one in enumerate(others, 1):
        last = number == len(others) and not objects
        again = one in shown and bool(found.below.get(one))
        yield f"{indent}{'└─' if last else '├─'} {_label(found.nodes[one])}{' (see above)' if again else ''}"
        if not again:
            shown.add(one)
            yield _branches(found, one, f"{indent}{'   ' if last else '│  '}", shown)
    # Asked only now: the objects may be those of a stage deeper in the tree, whose lines have been drawn meanwhile.
    if objects and shown.issuperset(objects):
        yield f"{indent}└─ {len(objects):,} objects (see above)"
        return
    lines = [_label(found.nodes[one]) for one in objects[:SHOWN]]
    lines += [f"and {len(objects) - SHOWN:,} more objects"] if len(objects) > SHOWN else []
    yield from (f"{indent}{'└─' if number == len(lines) else '├─'} {line}" for number, line in enumerate(lines, 1))
    shown.update(objects)


def _label(node: "Node") -> str:
    """What a person would call a node. Names of objects come from strangers: nothing in them may steer a terminal."""
    from cairn.audit.text import shown

    name = shown(node.name)
    if node.kind == "stage":
        return f"{name}, {shown(moment(node.finished))}"
    return name if node.kind == "source" else f"{name}  {short(node.digest)}"
