"""`cairn store`: what a store holds, whether it is sound, what nothing needs any more, and copies to another one."""

import re
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cairn.cli.output import AsJson, moment, print_json, short, show, table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cairn.lineage.catalogue import Catalogue, Item
    from cairn.lineage.collection import Plan
    from cairn.lineage.copying import Copied
    from cairn.lineage.store import Store
    from cairn.lineage.verification import Report

app = typer.Typer(no_args_is_help=True, help="Look after the store: list, verify, repair, collect, copy.")
SHOWN = 40  # rows of a table that a person reads; --json has all
NAMED = 3  # keys in a line
DAY = 24 * 3600
UNITS = {"m": 60, "h": 3600, "d": DAY, "w": 7 * DAY}
At = Annotated[
    str | None,
    typer.Option("--store", metavar="URL", help="The store. Default: CAIRN_STORE, else the project's DVC remote."),
]
Digests = Annotated[
    list[str] | None,
    typer.Argument(metavar="[DIGEST]...", help="Digests of artifacts, or how they begin. Default: all."),
]


@app.command("ls")
def ls(
    digests: Digests = None,
    runs: Annotated[bool, typer.Option("--runs", help="List runs instead.")] = False,
    models: Annotated[bool, typer.Option("--models", help="List what models point to instead.")] = False,
    store: At = None,
    json: AsJson = False,
) -> None:
    """List artifacts, the newest first: what each is, how large, and whether all of it is here."""
    from cairn.lineage.catalogue import catalogue, full_digests
    from cairn.lineage.signing import trusted_keys

    at = _store(store)
    if runs or models:
        _list_runs(at, json) if runs else _list_models(at, json)
        return
    found = catalogue(at, trusted_keys(), full_digests(at, digests or ()))
    if json:
        print_json(_catalogue_json(at, found))
        return
    rows = table("digest", "what", "by", "when", "size>", "files>", "here")
    for item in found.items:
        by = f"{item.component} {item.version}" if item.component else ""
        what = item.name or (item.artifact.members[0].path if not item.artifact.is_directory else "")
        rows.add_row(short(item.digest), what, by, moment(item.when), _bytes(item.size), f"{item.files:,}", _here(item))
    if found.items:
        show(rows)
    for fault in found.faults:
        print(f"not readable: {fault}")
    whole = sum(item.is_whole for item in found.items)
    print(f"{_some(len(found.items), 'artifact')}, {whole:,} of them whole, in {at}")
    print(f"{_some(found.objects, 'object')}, {_bytes(found.bytes)}", end="")
    print(f"; no pin names {found.unpinned:,} of them, {_bytes(found.unpinned_bytes)}" if found.unpinned else "")
    if digests and len(found.items) == 1:
        _print_files(found.items[0])


@app.command("verify")
def verify(
    digests: Digests = None,
    no_bytes: Annotated[bool, typer.Option("--no-bytes", help="Compare names and sizes; read no object.")] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Fetch good copies, or make room for them.")] = False,
    source: Annotated[
        str | None, typer.Option("--from", metavar="URL", help="With --repair: a store that has good copies.")
    ] = None,
    store: At = None,
    json: AsJson = False,
) -> int:
    """Hash every object and check every record. Exit code 1 when something is wrong."""
    from cairn.errors import StoreError
    from cairn.lineage.catalogue import full_digests
    from cairn.lineage.repair import Sources, workspace_of
    from cairn.lineage.repair import repair as mend
    from cairn.lineage.signing import trusted_keys
    from cairn.lineage.store import Store
    from cairn.lineage.verification import verify as look

    if source and not repair:
        raise StoreError("--from names where good copies are fetched from: it goes with --repair")
    at, good = _store(store), _store(source, "--from") if source else None
    report, known = look(at, trusted_keys(), full_digests(at, digests or ()), with_bytes=not no_bytes)
    if repair and report.faults:
        copies = [*map(Store, at.mirrors), *([good] if good else [])]
        report.faults = mend(at, report, known, Sources(tuple(copies), workspace_of(Path())))
    if json:
        print_json({"store": str(at), **asdict(report), "wrong": len(report.wrong)})
    else:
        _print_report(at, report, no_bytes)
    return 1 if report.wrong else 0


@app.command("gc")
def gc(
    older_than: Annotated[
        str, typer.Option("--older-than", metavar="AGE", help="Minimum age, such as 36h or 7d.")
    ] = "7d",
    git: Annotated[
        list[Path] | None,
        typer.Option("--git", help="A Git repository whose refs count; may be given again. Default: this project's."),
    ] = None,
    no_git: Annotated[bool, typer.Option("--no-git", help="No Git ref names anything in this store.")] = False,
    delete: Annotated[bool, typer.Option("--delete", help="Remove it. Without, it is only shown.")] = False,
    store: At = None,
    json: AsJson = False,
) -> None:
    """Show, or remove, the bytes that no run, model or Git ref needs, nor anything that was made from them."""
    import time

    from cairn.errors import StoreError
    from cairn.lineage.catalogue import catalogue
    from cairn.lineage.collection import Repositories, collect, plan
    from cairn.lineage.signing import trusted_keys

    if git and no_git:
        raise StoreError("--git and --no-git: only one of them can be meant")
    at, age = _store(store), _age(older_than)
    where = Repositories((), (Path(),)) if no_git else Repositories(tuple(git or [Path()]), ())
    if not age:
        print(
            "warning: of what a run is writing now, all may be removed: nobody should be using this store",
            file=sys.stderr,
        )
    found = collect(at, where, age) if delete else plan(at, where, age, time.time())
    going = [one.digest for one in found.artifacts]
    items = {item.digest: item for item in catalogue(at, trusted_keys(), going).items} if going else {}
    if json:
        print_json(_plan_json(at, found, items, delete))
        return
    _print_plan(found, items, delete)


@app.command("cp")
def cp(
    to: Annotated[str, typer.Option("--to", metavar="URL", help="The store to copy to.")],
    digests: Annotated[
        list[str] | None, typer.Argument(metavar="[DIGEST]...", help="Artifacts, or how they begin.")
    ] = None,
    source: Annotated[
        str | None, typer.Option("--from", metavar="URL", help="The store to copy from. Default: the project's.")
    ] = None,
    ancestors: Annotated[
        bool, typer.Option("--ancestors", help="All that led to them too: what an audit walks back to.")
    ] = False,
    everything: Annotated[bool, typer.Option("--all", help="Every artifact, run record and model pointer.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent, and send nothing.")] = False,
    json: AsJson = False,
) -> int:
    """Copy artifacts with their attestations and signatures to another store. Started again, it goes on."""
    from cairn.errors import StoreError
    from cairn.lineage.catalogue import full_digests
    from cairn.lineage.copying import chosen, copy
    from cairn.lineage.repair import workspace_of
    from cairn.lineage.store import Store

    if not digests and not everything:
        raise StoreError("nothing to copy: name digests (`cairn store ls` shows them), or say --all")
    if digests and everything:
        raise StoreError("--all copies every artifact: name digests, or say --all, not both")
    at, target = _store(source, "--from"), Store(to)
    _check_target(at, to)
    wanted = chosen(at, full_digests(at, digests or ()), ancestors, everything)
    copied = copy(at, target, wanted, everything, dry_run, workspace_of(Path()))
    if json:
        print_json({"from": str(at), "to": str(target), "dry_run": dry_run, **asdict(copied)})
    else:
        _print_copied(copied, to, dry_run)
    return 1 if copied.lacking else 0


def _print_files(item: "Item") -> None:
    """The files of an artifact, those first that are not here."""
    absent = set(item.absent)
    for member in sorted(item.artifact.members, key=lambda one: one.md5 not in absent)[:SHOWN]:
        lost = "  MISSING" if member.md5 in absent else ""
        print(f"  {member.path or '(its one file)'}  {_bytes(member.size)}  {short(member.sha256)}{lost}")
    _tell_more(item.files, "files")
    if any(address.endswith(".dir") for address in absent):
        print("  its `.dir` object, the listing that DVC reads, is MISSING")


def _check_target(at: "Store", to: str) -> None:
    """Raises StoreError when a copy to `to` would lie in the store that is copied, or in another."""
    from cairn.errors import StoreError
    from cairn.lineage.filesystem import is_local, open_url

    (filesystem, here), (other, there) = open_url(at.url), open_url(to)
    same = type(filesystem) is type(other) and filesystem.storage_options == other.storage_options
    if same and here.rstrip("/") == there.rstrip("/"):
        raise StoreError(f"--to {to}: is the store that is copied from: name another")
    if same and f"{there.rstrip('/')}/".startswith(f"{here.rstrip('/')}/"):
        raise StoreError(f"--to {to}: lies inside the store that is copied from: name another place")
    if is_local(other):
        for folder in Path(there).resolve().parents:
            if (folder / "files" / "md5").is_dir() and (folder / "pins").is_dir():
                raise StoreError(f"--to {to}: lies inside the store {folder}: name another place")


def _store(url: str | None, option: str = "--store") -> "Store":
    from dataclasses import replace

    from cairn.lineage.store import Store

    found = Store.default()
    found = found if url is None else replace(found, url=url)
    found.check() if "://" in found.url or Path(found.url).exists() else _no_store(found.url, option)
    return found


def _no_store(url: str, option: str) -> None:
    from cairn.errors import StoreError

    raise StoreError(f"{url}: no such store: `cairn run` makes one, and {option} names another")


def _list_runs(at: "Store", json: bool) -> None:
    from dataclasses import replace

    from cairn.lineage.catalogue import runs
    from pipelines.stages import stages

    order = [name for stage in stages() for name in (stage.name, *stage.outputs)]

    def sort(said: "Mapping[str, str]") -> dict[str, str]:
        return dict(sorted(said.items(), key=lambda one: order.index(one[0]) if one[0] in order else len(order)))

    found = [replace(run, stages=sort(run.stages), outputs=sort(run.outputs)) for run in runs(at)]
    if json:
        print_json([asdict(run) for run in found])
        return
    rows = table("run", "when", "stages", "made")
    for run in found:
        done = ", ".join(f"{stage} {outcome}" for stage, outcome in run.stages.items())
        rows.add_row(
            run.name, moment(run.when), done, ", ".join(f"{name} {short(one)}" for name, one in run.outputs.items())
        )
    if found:
        show(rows)
    print(f"{_some(len(found), 'run')} in {at}")


def _list_models(at: "Store", json: bool) -> None:
    from cairn.lineage.catalogue import models

    found = models(at)
    if json:
        print_json({name: {"version": version, "digests": digests} for name, (version, digests) in found.items()})
        return
    rows = table("model", "version>", "points to")
    for name, (version, digests) in found.items():
        rows.add_row(name, str(version), ", ".join(map(short, digests)) or "nothing that can be read")
    if found:
        show(rows)
    print(f"{_some(len(found), 'model')} in {at}")


def _catalogue_json(at: "Store", found: "Catalogue") -> dict[str, Any]:
    items = [{**asdict(item), "artifact": None, "whole": item.is_whole} for item in found.items]
    for item in items:
        del item["artifact"]
    return {"store": str(at), **{name: getattr(found, name) for name in TOTALS}, "artifacts": items}


TOTALS = ("objects", "bytes", "unpinned", "unpinned_bytes", "faults")


def _here(item: "Item") -> str:
    if item.is_whole:
        return "yes"
    return f"{item.missing:,} of {item.objects:,} objects missing" if item.missing < item.objects else "no"


def _print_report(at: "Store", report: "Report", no_bytes: bool) -> None:
    for fault in report.faults:
        print(f"{'mended' if fault.repaired else 'WRONG'}: {fault.key}: {fault.said}")
        print(f"    {fault.repaired or fault.way_out}")
    records = report.records
    read = "not read" if no_bytes else f"{_bytes(report.read)} read"
    print(f"{at}: {_some(report.objects, 'object')}, {read}; {report.unpinned:,} of them named by no pin")
    print(f"artifacts: {report.whole:,} whole, {report.partly:,} in part, {report.elsewhere:,} pinned and not here")
    print(
        f"attestations: {records.trusted:,} by trusted keys, {records.untrusted:,} by others; "
        f"{_some(records.signposts, 'signpost')}, {_some(records.runs, 'run record')}, "
        f"{_some(records.models, 'model')}, {_some(records.signatures, 'signature')}"
    )
    _print_keys("left behind by killed uploads, which `cairn store gc --delete` sweeps when old", report.leftovers)
    _print_keys("none of ours, for you to look at and to move away", report.strangers)
    if report.quarantined:
        print(f"{report.quarantined:,} in quarantine/, to be removed by hand when nobody needs them")
    for note in report.notes:
        print(f"note: {note}")
    mended = len(report.faults) - len(report.wrong)
    said = _some(len(report.wrong), "fault") if report.wrong else "no faults"
    print(said + (f", {mended:,} mended" if mended else ""))


def _print_keys(said: str, keys: list[str]) -> None:
    if keys:
        rest = f" and {len(keys) - NAMED:,} more" if len(keys) > NAMED else ""
        print(f"{len(keys):,} {said}: {', '.join(sorted(keys)[:NAMED])}{rest}")


def _print_plan(found: "Plan", items: "dict[str, Item]", delete: bool) -> None:
    if found.artifacts:
        rows = table("digest", "what", "made", "pinned>", "frees>", "why")
        for one in found.artifacts[:SHOWN]:
            item = items.get(one.digest)
            rows.add_row(
                short(one.digest),
                (item.name or item.artifact.members[0].path) if item else "",
                moment(item.when) if item else "",
                f"{one.age / DAY:.0f} days ago",
                _bytes(one.frees),
                "no run, model or Git ref names it, or what was made from it",
            )
        show(rows)
        _tell_more(len(found.artifacts), "artifacts")
    if found.unpinned:
        size = sum(entry.size for entry in found.unpinned)
        print(f"{_some(len(found.unpinned), 'object')} that no pin and no lock file names: {_bytes(size)}")
    if found.leftovers:
        print(f"{len(found.leftovers):,} left behind by killed uploads")
    counts = Counter(root.by for root in found.roots)
    named = ", ".join(f"{_some(count, 'time')} by {kind}" for kind, count in counts.items()) or "by nothing"
    print(
        f"kept: {_some(found.kept, 'object')}, {_bytes(found.kept_bytes)}, named {named}; "
        f"{found.young:,} too young to go"
    )
    going = len(found.objects) + len(found.leftovers)
    if delete:
        print(f"removed: {_some(going, 'object')}, {_bytes(found.bytes)}")
    elif going:
        print(f"would be removed: {_some(going, 'object')}, {_bytes(found.bytes)}; --delete removes them")
    else:
        print("nothing to remove")


def _plan_json(at: "Store", found: "Plan", items: "dict[str, Item]", delete: bool) -> dict[str, Any]:
    artifacts = []
    for one in found.artifacts:
        item = items.get(one.digest)
        artifacts.append({**asdict(one), "name": item.name if item else "", "when": item.when if item else ""})
    return {
        "store": str(at),
        "deleted": delete,
        "bytes": found.bytes,
        "artifacts": artifacts,
        "objects": [entry.key for entry in found.objects],
        "unpinned": [entry.key for entry in found.unpinned],
        "leftovers": [entry.key for entry in found.leftovers],
        "kept": found.kept,
        "kept_bytes": found.kept_bytes,
        "young": found.young,
        "roots": [asdict(root) for root in found.roots],
    }


def _print_copied(copied: "Copied", to: str, dry_run: bool) -> None:
    sent = "would be sent" if dry_run else "sent"
    print(
        f"{_some(len(copied.artifacts), 'artifact')} to {to}: {_some(copied.objects, 'object')} {sent}, "
        f"{_bytes(copied.sent)}; {copied.there:,} were there"
        + (f"; {copied.absent:,} not to be had" if copied.absent else "")
        + ("" if dry_run else f"; {_some(copied.records, 'record')}")
    )
    for digest, paths in copied.lacking.items():
        which = paths[0] + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")
        print(f"not to be had: {which} of {short(digest)}: its pin and attestations were copied alone")


def _tell_more(count: int, what: str) -> None:
    if count > SHOWN:
        print(f"  and {count - SHOWN:,} more {what}; --json has all")


def _age(text: str) -> float:
    """Seconds. Raises StoreError when it is no age."""
    from cairn.errors import StoreError

    found = re.fullmatch(r"(\d+(?:\.\d+)?)([mhdw])|0", text)
    if not found:
        raise StoreError(
            f"--older-than {text!r}: is no age: write one such as 36h or 7d (m, h, d and w are understood)"
        )
    return float(found[1]) * UNITS[found[2]] if found[1] else 0.0


def _some(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _bytes(count: int) -> str:
    """`1536` as `1.5 kB`, in powers of 1,000."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 999.5 or unit == "TB":
            return f"{size:.0f} {unit}" if unit == "B" or size >= 99.5 else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError
