"""The weights that training begins with go to the store, so that an audit finds them and a collection keeps them."""

import sys
from pathlib import Path

from cairn.errors import StageError
from cairn.lineage.store import Store
from trainer.beginning import check_beginning
from trainer.recipe import Training
from trainer.tokens import Tokens


def keep(section: Training, tokens: Path, store: Store) -> None:
    """See to it that the store has the folder of `section.init_from`, once it was found to be what the recipe means.

    Raises:
        StageError: it is not, or was changed meanwhile.
        StoreError: the store cannot be written to.
    """
    asked = section.init_from
    if asked is None:
        return
    check_beginning(section, Tokens.open(tokens))
    if store.hold(asked.sha256):
        return
    print(f"pretrain: {asked.path} goes to the store ({asked.sha256[:12]})", file=sys.stderr, flush=True)
    if store.put(Path(asked.path)).digest != asked.sha256:
        raise StageError(f"pretrain.init_from: {asked.path} was changed while it was read: run it again")
