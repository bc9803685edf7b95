"""Artifacts brought to where a replay can read them: sound copies where there are any, else from the store."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cairn.audit.copies import Copies
from cairn.audit.reading import Reader
from cairn.errors import StoreError
from cairn.lineage.store import Store, identity


@dataclass
class Fetcher:
    """Brings artifacts to a folder, checked by sha256; each but once."""

    copies: Mapping[str, Copies]
    reader: Reader
    store: Store
    scratch: Path
    fetched: dict[str, Path] = field(default_factory=dict)

    def __call__(self, digest: str, only: Collection[str] | None = None) -> Path:
        """Where the artifact of this digest, or at least the files `only` of it, lies now. It is not to be written to.

        Raises StoreError when neither a folder nor the store has its bytes.
        """
        key = identity([digest, sorted(only) if only is not None else None])
        if key not in self.fetched:
            self.fetched[key] = self._here(digest) or self._bring(digest, only, key)
        return self.fetched[key]

    def _here(self, digest: str) -> Path | None:
        """A folder whose every byte was found right in this audit."""
        known = self.copies.get(digest)
        for copy in known.copies if known is not None and self.reader.read_bytes else ():
            if copy.is_folder and copy.digest(self.reader) == digest:
                return Path(copy.where)
        return None

    def _bring(self, digest: str, only: Collection[str] | None, key: str) -> Path:
        place = self.scratch / key[:16]
        self.scratch.mkdir(parents=True, exist_ok=True)
        self.store.get(digest, place, only)
        if not place.exists():
            raise StoreError(f"{self.store.url}: {digest} holds none of what was asked for")
        return place
