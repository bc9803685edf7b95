"""The weights that training begins with go to the store, so that an audit finds them and a collection keeps them."""

import sys
from pathlib import Path
from typing import Any

from cairn.errors import StageError
from cairn.lineage.attestation import BEGINNING, maker
from cairn.lineage.statement import Resource
from cairn.lineage.store import Store
from trainer.beginning import check_beginning
from trainer.cache import Stored
from trainer.recipe import InitFrom, Training
from trainer.tokens import Tokens


def keep(asked: InitFrom, section: Training, tokens: Path | Stored, store: Store) -> Resource:
    """See to it that the store has the folder of `section.init_from`, once it was found to be what the recipe means.

    Returns:
        What the attestation says of it: where nothing that is believed tells what made it, that it was given.

    Raises:
        StageError: it is not, or was changed meanwhile.
        StoreError: the store cannot be written to.
    """
    check_beginning(section, Tokens.open(tokens))
    if not store.hold(asked.sha256):
        print(f"pretrain: {asked.path} goes to the store ({asked.sha256[:12]})", file=sys.stderr, flush=True)
        if store.put(Path(asked.path)).digest != asked.sha256:
            raise StageError(f"pretrain.init_from: {asked.path} was changed while it was read: run it again")
    noted: dict[str, Any] = {"kind": BEGINNING, "path": asked.path}
    if maker(store, asked.sha256) is None:
        noted["given"] = True
    return Resource("init_from", asked.sha256, annotations=noted)
