"""The version of Cairn, and which of two versions is the newer."""

from importlib import metadata


def installed() -> str:
    """The version of Cairn that is running."""
    return metadata.version("cairn")


def is_newer(version: str, than: str) -> bool:
    """Whether `version` comes after `than`; both are numbers with dots."""
    return _numbers(version) > _numbers(than)


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".") if part.isdecimal()]
