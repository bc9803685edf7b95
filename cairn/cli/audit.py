"""`cairn audit`: walk a model back to its sources, and say of every step what is proved, claimed, missing, changed."""

import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cairn.cli.output import AsJson, print_json, width

if TYPE_CHECKING:
    from rich.text import Text

    from cairn.audit.replay.job import Sample
    from cairn.audit.walk import Replay
    from cairn.lineage.store import Store

MODEL = Path("artifacts", "model")


def audit(
    model: Annotated[
        str, typer.Argument(help="An artifact's path, or 6 or more digits of its digest.", metavar="MODEL|DIGEST")
    ] = str(MODEL),
    store: Annotated[str | None, typer.Option(help="URL of the store. Default: the project's, or CAIRN_STORE.")] = None,
    key: Annotated[
        list[Path] | None,
        typer.Option(help="A public key in PEM; only these are trusted. Default: your own and those in trusted/."),
    ] = None,
    no_bytes: Annotated[
        bool, typer.Option("--no-bytes", help="Do not read artifacts: look whether they are there.")
    ] = False,
    strict_code: Annotated[
        bool, typer.Option("--strict-code", help="Different code under one version is a fault.")
    ] = False,
    replay: Annotated[bool, typer.Option("--replay", help="Do a sample of every stage again, and compare.")] = False,
    sample: Annotated[
        str | None,
        typer.Option(help="With --replay: objects, shards or documents of a stage, or `all`.", show_default="20"),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="With --replay: seed of the sample.", show_default="0")] = None,
    steps: Annotated[
        str | None, typer.Option(help="With --replay: the training steps after A up to B; A is 0 or a kept step.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write the graph as one page, too.")] = None,
    json: AsJson = False,
) -> None:
    """Say what can be proved of a model's past. Ends with 0 only when nothing is wrong, with 1 when something is."""
    from cairn.audit.document import document
    from cairn.audit.replay.job import Sample
    from cairn.audit.walk import audit as walk
    from cairn.errors import AttestationError, StageError
    from cairn.lineage.signing import read_public_keys, trusted_keys

    if not replay and (sample, seed, steps) != (None, None, None):
        raise StageError("--sample, --seed and --steps say how much is done again: give --replay too")
    drawn = Sample.asked("20" if sample is None else sample, seed or 0, steps)
    _check_page(html, model)
    opened = _store(store)
    keys = read_public_keys(key) if key else trusted_keys()
    if not keys:
        raise AttestationError("no key is trusted here: name a public key with --key PUBLIC.pem")
    root = Path() if Path("dvc.yaml").exists() or Path("params.yaml").exists() else None
    with tempfile.TemporaryDirectory(prefix="cairn-audit-") as scratch:
        again = _replay(opened, drawn, Path(scratch)) if replay else None
        found = walk(
            model,
            store=opened,
            keys=keys,
            root=root,
            read_bytes=not no_bytes,
            strict_code=strict_code,
            replay=again,
            scratch=Path(scratch),
        )
    if html is not None:
        from cairn.audit.page import page
        from cairn.lineage.artifact import written_aside

        with written_aside(html) as aside:
            aside.write_text(page(found, str(opened), keys), encoding="utf-8")
    if json:
        print_json(document(found, str(opened), keys))
    else:
        from cairn.audit.text import lines

        for line in lines(found):
            _print(line)
    raise typer.Exit(1 if found.wrong else 0)


def _store(url: str | None) -> "Store":
    """The store that is asked. One that is named is asked alone: what is in a cache here proves nothing of it."""
    from cairn.lineage.store import Store

    return Store.default() if url is None else Store(url)


def _replay(store: "Store", sample: "Sample", scratch: Path) -> "Replay":
    from cairn.audit.replay import replay
    from cairn.resources import Resources

    return partial(replay, store=store, sample=sample, scratch=scratch, resources=Resources.from_environment())


def _check_page(html: Path | None, model: str) -> None:
    """Better told before the reading than after it."""
    from cairn.errors import ArtifactError
    from cairn.lineage.artifact import check_place
    from pipelines.stages import stages

    if html is None:
        return
    for artifact in (Path(model), *(made for stage in stages() for made in stage.outputs.values())):
        if artifact.exists() and html.resolve().is_relative_to(artifact.resolve()):
            raise ArtifactError(f"--html {html}: {artifact} is an artifact and stays as it was made: write elsewhere")
    if html.is_dir():
        raise ArtifactError(f"--html {html}: is a folder: name a file")
    check_place(html, html.parent)


def _print(line: "Text") -> None:
    """Print a line whole: a terminal breaks it, a file does not."""
    from rich.console import Console

    Console(width=width(), highlight=False, markup=False, emoji=False, soft_wrap=True).print(line)
