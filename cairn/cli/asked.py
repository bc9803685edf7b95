"""The options `--store` and `--key`: which store is asked, and whose signatures are believed."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cairn.lineage.graph import Keys as PublicKeys
    from cairn.lineage.store import Store

At = Annotated[
    str | None, typer.Option("--store", metavar="URL", help="URL of the store. Default: the project's, or CAIRN_STORE.")
]
Keys = Annotated[
    list[Path] | None,
    typer.Option("--key", help="A public key in PEM; only these are trusted. Default: your own and those in trusted/."),
]


def named_store(url: str | None) -> "Store | None":
    """The store that was named, asked alone; None when none was. Raises StoreError when it is not there."""
    from cairn.lineage.store import Store

    if url is None:
        return None
    store = Store(url)
    store.check()
    return store


def believed_keys(paths: list[Path] | None) -> "PublicKeys":
    """The keys that were named, else those that are trusted on this machine."""
    from cairn.lineage.signing import read_public_keys, trusted_keys

    return read_public_keys(paths) if paths else trusted_keys()
