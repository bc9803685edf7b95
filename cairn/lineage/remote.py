"""The project's default DVC remote, read from its configuration."""

import configparser
import os
from dataclasses import dataclass
from pathlib import Path

from cairn.errors import StoreError, one_line


@dataclass(frozen=True)
class Remote:
    """A DVC remote."""

    name: str
    url: str
    """As DVC means it: a relative path is taken from where the program runs."""
    verify: bool
    """Whether DVC compares what it fetches with its address."""


def default_remote(root: Path) -> Remote | None:
    """The project's default DVC remote. Read without dvc, which takes a second to import."""
    config = configparser.ConfigParser(interpolation=None)
    try:
        config.read([root / ".dvc" / "config", root / ".dvc" / "config.local"])
    except configparser.Error as error:
        raise StoreError(f"{root / '.dvc' / 'config'}: cannot be read: {one_line(error)}") from None
    name = config.get("core", "remote", fallback=None)
    section = f"'remote \"{name}\"'"
    url = config.get(section, "url", fallback=None)
    if name is None or url is None:
        return None
    if "://" not in url:
        # DVC takes a relative path from the folder of its configuration.
        url = os.path.relpath(root / ".dvc" / url, Path())
    return Remote(name, url, config.get(section, "verify", fallback="false").lower() in ("true", "1", "yes", "on"))
