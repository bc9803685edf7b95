"""Canaries: secrets in the environment of a run, and a search for them in everything that it leaves."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zstandard

CANARY = "canary4711"
SECRETS = {
    "AWS_SECRET_ACCESS_KEY": f"{CANARY}/wJalrXUtnFEMI",
    "DATABASE_PASSWORD": f"{CANARY}-password",
    "GITHUB_TOKEN": f"ghp_{CANARY}0123456789abcdefghijklmnopqrstuv",
    "HF_TOKEN": f"hf_{CANARY}0123456789abcdefghijklmnopqrs",
    "TLS_KEY": f"-----BEGIN PRIVATE KEY-----\n{CANARY}\n-----END PRIVATE KEY-----\n",
    "WANDB_API_KEY": f"{CANARY}0123456789abcdef0123456789abcd",
}


def found_in(*folders: Path, words: tuple[str, ...] = (CANARY,)) -> list[str]:
    """The files under `folders` that hold one of `words`: as they are, packed by zstd, or in base64 in JSON."""
    wanted = [word.encode() for word in words]
    return [
        str(path)
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink() and any(word in data for data in _forms(path) for word in wanted)
    ]


def _forms(path: Path) -> Iterator[bytes]:
    data = path.read_bytes()
    yield str(path).encode()
    yield data
    if data.startswith(b"\x28\xb5\x2f\xfd"):
        yield zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True).read()
    if data.startswith(b"{"):
        try:
            yield from _unpacked(json.loads(data))
        except ValueError:
            return  # lines of JSON, which hold nothing in base64


def _unpacked(node: Any) -> Iterator[bytes]:
    if isinstance(node, dict):
        if isinstance(node.get("payload"), str):
            yield base64.b64decode(node["payload"])
        for inner in node.values():
            yield from _unpacked(inner)
