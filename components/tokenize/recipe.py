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
    """Size of the vocabulary to train: 256 bytes, the end-of-text token, a mask token if asked for, and merges."""
    train_bytes: int = Field(default=1_000 * MB, gt=0)
    """Train on at most this much text of the train split: whole documents, drawn by their ids, so that a domain is
    there with the share that it has in the whole."""
    end_of_text: str = Field(default="<|endoftext|>", min_length=1)
    """The token that ends every document."""
    mask_token: str | None = Field(default=None, min_length=1)
    """The token that stands for a masked one, such as `<|mask|>`, which a bidirectional model needs; a trained
    tokenizer gets it, a given one must have it. Null has none."""
    shard_tokens: int = Field(default=100_000_000, gt=0)
    """Begin a new shard when one has this many tokens."""

    @model_validator(mode="after")
    def _special_tokens_fit(self) -> "Tokenize":
        if self.mask_token == self.end_of_text:
            raise ValueError(f"mask_token and end_of_text are both {self.end_of_text!r}: one token cannot be both")
        if self.mask_token is not None and self.vocab_size < 258:
            raise ValueError("vocab_size: 256 bytes, the end-of-text token and the mask token are 258 (or more)")
        return self

    @model_validator(mode="after")
    def _a_given_tokenizer_is_pinned(self) -> "Tokenize":
        if self.tokenizer is not None and self.tokenizer_sha256 is None:
            raise ValueError("a given tokenizer needs tokenizer_sha256: `sha256sum` of the file")
        if self.tokenizer is None and self.tokenizer_sha256 is not None:
            raise ValueError("tokenizer_sha256 says which file tokenizer leads to, and there is no tokenizer: add one")
        return self
