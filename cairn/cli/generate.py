"""`cairn generate`: let a model go on with a text, or fill in the mask tokens of one."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cairn.cli.output import AsJson, print_json
from cairn.errors import ArtifactError, SourceError

if TYPE_CHECKING:
    from components.evaluate.filling import Filling

GUESSES = 5  # told of a mask token
SEEDS = 2**63 - 1  # the largest that torch takes


def generate(
    prompt: Annotated[str, typer.Argument(help="The beginning, or text with mask tokens; `-`: from stdin.")] = "",
    model: Annotated[
        Path | None,
        typer.Option(help="A Hugging Face directory, or a checkpoint. Default: artifacts/model, or the checkpoint."),
    ] = None,
    tokens: Annotated[int, typer.Option(min=1, help="Tokens to write, at most.")] = 128,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 takes the likeliest token every time.")] = 0.8,
    top_k: Annotated[int, typer.Option(min=0, help="Draw from so many of the likeliest tokens; 0: all.")] = 50,
    seed: Annotated[int, typer.Option(min=0, max=SEEDS, help="Of the draws: the same seed gives the same text.")] = 0,
    json: AsJson = False,
) -> None:
    """Continue a text, token by token. A base model does not answer: it goes on; one of masked tokens fills them in."""
    folder = model or _default()
    if not folder.is_dir():
        raise ArtifactError(f"{folder}: no such folder: name a model with --model")
    if prompt == "-":
        prompt = _text(sys.stdin.buffer.read(), "stdin")
    else:
        prompt = _text(prompt.encode("utf-8", "surrogateescape"), "the prompt")
    from cairn.resources import Resources
    from components.evaluate.continuation import load
    from components.evaluate.filling import Filling
    from components.report.markup import visible

    loaded = load(folder, Resources.from_environment().workers)
    if isinstance(loaded, Filling):
        _fill(loaded, prompt, top_k, str(folder), json)
        return
    length = len(loaded.encode(prompt))
    if length > loaded.context:
        print(f"the prompt has {length} tokens; the model sees the last {loaded.context}", file=sys.stderr)
    shown = visible if sys.stdout.isatty() else str
    if not json:
        print(shown(prompt), end="", flush=True)
    written: list[tuple[int, str]] = []
    for token, text in loaded.stream(prompt, tokens=tokens, temperature=temperature, top_k=top_k or None, seed=seed):
        written.append((token, text))
        if not json:
            print(shown(text), end="", flush=True)
    if json:
        said = {"model": str(folder), "prompt": prompt, "text": "".join(text for _, text in written)}
        print_json({**said, "tokens": [token for token, _ in written], "seed": seed})
    else:
        print()


def _fill(model: "Filling", prompt: str, top_k: int, folder: str, json: bool) -> None:
    """Print the text with the likeliest tokens in it, and on a line for each mask token what else may stand there."""
    from components.report.markup import visible

    guesses = model.fill(prompt, min(top_k or GUESSES, GUESSES))
    first, *rest = model.around(prompt)
    filled = first + "".join(one[0].text + part for one, part in zip(guesses, rest, strict=True))
    if json:
        masks = [[asdict(guess) for guess in one] for one in guesses]
        print_json({"model": folder, "prompt": prompt, "text": filled, "masks": masks})
        return
    print(visible(filled) if sys.stdout.isatty() else filled)
    for number, one in enumerate(guesses, 1):
        print(f"{number}: " + ", ".join(f"{guess.text!r} {guess.probability:.1%}" for guess in one), file=sys.stderr)


def _text(data: bytes, place: str) -> str:
    """What was typed or piped in. Bytes that are no text cannot be tokens."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SourceError(f"{place}: is not UTF-8 (byte {error.start}): convert it, as with `iconv -t utf-8`") from None


def _default() -> Path:
    from pipelines.stages import place

    for name in ("model", "checkpoint"):
        if place(name).is_dir():
            return place(name)
    raise ArtifactError(f"{place('model')}: no model here yet: `cairn run` makes one, or name one with --model")
