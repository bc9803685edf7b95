"""What a person decides about tokens."""

from pydantic import Field, model_validator

from cairn.recipe import Section

MB = 1_000_000


class Tokenize(Section):
    """How documents become tokens."""

    tokenizer: str | None = None
    """Path of a `tokenizer.json` to use; null trains one."""
    tokenizer_sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """sha256 of that file: the recipe says which bytes it means, wherever the path leads."""
    vocab_size: int = Field(default=4096, ge=257)
    """Size of the vocabulary to train: 256 bytes, the end-of-text token, and merges."""
    train_bytes: int = Field(default=1_000 * MB, gt=0)
    """Train on at most this much text of the train split: whole documents, drawn by their ids, so that a domain is
    there with the share that it has in the whole."""
    end_of_text: str = Field(default="<|endoftext|>", min_length=1)
    """The token that ends every document."""
    shard_tokens: int = Field(default=100_000_000, gt=0)
    """Begin a new shard when one has this many tokens."""

    @model_validator(mode="after")
    def _a_given_tokenizer_is_pinned(self) -> "Tokenize":
        if self.tokenizer is not None and self.tokenizer_sha256 is None:
            raise ValueError("a given tokenizer needs tokenizer_sha256: `sha256sum` of the file")
        if self.tokenizer is None and self.tokenizer_sha256 is not None:
            raise ValueError("tokenizer_sha256 says which file tokenizer leads to, and there is no tokenizer: add one")
        return self
