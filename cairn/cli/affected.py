"""`cairn affected`: what a source reached."""

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cairn.cli.asked import At, Keys
from cairn.cli.output import AsJson, print_json, short, show, table

if TYPE_CHECKING:
    from pipelines.affected import Hit

WHICH = (
    "A source's name; an object's URI, or a glob of URIs; at least 6 digits of an object's sha256 or a document's id."
)


def affected(
    source: Annotated[str, typer.Argument(help=WHICH, show_default=False)],
    store: At = None,
    key: Keys = None,
    json: AsJson = False,
) -> None:
    """Show every artifact that a source, an object or a document reached, and which models were trained on it."""
    import pipelines.affected as reached
    from cairn.audit.text import shown
    from cairn.cli.asked import believed_keys, named_store
    from cairn.lineage.graph import scan
    from cairn.lineage.places import Places
    from cairn.lineage.store import Store
    from cairn.resources import Resources
    from pipelines.naming import artifacts_of

    at, workers = named_store(store) or Store.default(), Resources.from_environment().workers
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        fetch = Places(at, scratch / "fetched", artifacts_of(Path()))
        graph = scan(at, believed_keys(key))
        found = reached.affected(source, graph, at, fetch, scratch=scratch, workers=workers)
    if json:
        print_json(asdict(found))
        return
    such_as = ", ".join(found.objects[:3]) + (" …" if len(found.objects) > 3 else "")
    print(shown(f"{source}: {len(found.objects):,} objects: {such_as}"))
    hits = table("artifact", "digest", "made by", "of it")
    for hit in found.hits:
        hits.add_row(shown(hit.name), short(hit.digest), shown(hit.stage), shown(_of_it(hit)))
    show(hits)
    print()
    models = table("model", "digest", "", "why")
    for model in found.models:
        models.add_row(shown(model.name), short(model.digest), model.verdict, shown(model.why))
    show(models)
    for line in found.unknown:
        print(f"not known: {shown(line)}")
    if found.distrusted:
        print(f"{found.distrusted} attestations are signed by no trusted key and were passed over")


def _of_it(hit: "Hit") -> str:
    if hit.unknown:
        return f"not known: {hit.unknown}"
    if hit.documents is not None:
        return f"{', '.join(f'{number:,} {split}' for split, number in hit.documents.items())} documents"
    if hit.tokens is not None:
        return f"{hit.tokens:,} of {hit.of:,} train tokens"
    if hit.drawn is not None:
        return f"{hit.drawn:,} of {hit.of:,} tokens drawn in training"
    return "made from it"
