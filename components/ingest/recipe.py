"""What a person decides about ingest. Every threshold can be turned off with null; a dropped document is counted in the
ledger under the dotted key of the threshold that dropped it.

Defaults are the papers' and suit web pages in English. In short technical text (docstrings, manual pages) they drop
most of it: see recipes/tiny.yaml for values that do not.
"""

from typing import Literal

from pydantic import Field, model_validator

from cairn.recipe import Section

MB = 1_000_000


class Gopher(Section):
    """Quality rules of Gopher (Rae et al. 2021, arXiv 2112.11446, section A1.1). A word is a run without spaces."""

    min_words: int | None = Field(default=50, ge=0)
    """Fewest words of a document."""
    max_words: int | None = Field(default=100_000, gt=0)
    """Most words of a document."""
    min_mean_word: float | None = Field(default=3.0, ge=0)
    """Mean word length, characters."""
    max_mean_word: float | None = Field(default=10.0, gt=0)
    """Mean word length, characters."""
    max_symbols: float | None = Field(default=0.1, ge=0)
    """Hash signs for each word, and ellipses for each word: neither may exceed it."""
    max_bullet_lines: float | None = Field(default=0.9, ge=0, le=1)
    """Share of lines that begin with a bullet."""
    max_ellipsis_lines: float | None = Field(default=0.3, ge=0, le=1)
    """Share of lines that end with an ellipsis."""
    min_alphabetic: float | None = Field(default=0.8, ge=0, le=1)
    """Share of words with at least one letter."""
    min_stop_words: int | None = Field(default=2, ge=0, le=8)
    """How many of `the be to of and that have with` must occur. English only: null for other languages."""


class C4(Section):
    """Page rules of C4 (Raffel et al. 2020, arXiv 1910.10683, section 2.2).

    Not its terminal-punctuation rule: it drops about 30 % of pages and costs score (FineWeb, arXiv 2406.17557, 3.5).
    """

    min_sentences: int | None = Field(default=3, ge=0)
    """3 as in the paper; the released code has 5."""
    lorem_ipsum: bool = True
    """Drop what contains "lorem ipsum"."""
    curly_bracket: bool = True
    """Drop what contains `{`: on a web page a sign of code. Turn it off where code belongs in the text."""


class FineWeb(Section):
    """Line rules of FineWeb (Penedo et al. 2024, arXiv 2406.17557, section 3.6). Blank lines are not counted."""

    min_punctuated_lines: float | None = Field(default=0.12, ge=0, le=1)
    """Share of lines that end with punctuation; dropped at or below it."""
    max_duplicate_lines: float | None = Field(default=0.1, ge=0, le=1)
    """Share of characters in lines that came before. The section's text says 0.1; its table of filters and datatrove's
    default are ten times stricter, 0.01, which drops any document of up to 100 lines that repeats one of them, such as
    a manual page with two tables. We follow the text."""
    max_short_lines: float | None = Field(default=0.67, ge=0, le=1)
    """Share of lines of at most 30 characters; dropped at or above it."""


class Split(Section):
    """Which documents are never trained on. Decided by document id, so a document stays where it is as others come."""

    heldout: float = Field(default=0.05, ge=0, lt=1)
    """Share of documents that results are reported on."""
    development: float = Field(default=0.02, ge=0, lt=1)
    """Share of documents that may be used for tuning."""
    seed: int = 0
    """Of the draw."""

    @model_validator(mode="after")
    def _leaves_something(self) -> "Split":
        if self.heldout + self.development >= 1:
            raise ValueError(f"heldout ({self.heldout}) and development ({self.development}) leave nothing to train on")
        return self


class Html(Section):
    """How the text of a web page is found."""

    main_content: bool = True
    """Without navigation, menus, footers and the like; false for all the text that is shown."""
    max_depth: int | None = Field(default=256, gt=0)
    """How deep elements may be nested. The time that a page takes grows with the square of it."""
    max_attributes: int | None = Field(default=1000, gt=0)
    """Of one tag. The time that a page takes grows with the square of it."""


class Limits(Section):
    """How far an object is followed that is larger inside than outside. Past any of these ingest stops and names it:
    such an object was made to do harm, or needs a limit of its own. null turns a limit off."""

    max_unpacked_bytes: int | None = Field(default=100_000 * MB, gt=0)
    """What one compressed object may unpack to."""
    max_ratio: float | None = Field(default=500.0, gt=1)
    """Unpacked bytes for each packed byte, looked at from 64 MB unpacked on. Text packs 3 to 20 times smaller."""
    max_window_bytes: int = Field(default=1 << 27, ge=1 << 20, le=1 << 31)
    """Memory that undoing zstd (its window) or xz (all of it) may take: `zstd --long=31` needs 2,147,483,648."""
    max_seconds: float | None = Field(default=3600.0, gt=0)
    """CPU time for one object, the rules included."""


class Ingest(Section):
    """How source objects become documents."""

    invalid_utf8: Literal["error", "drop"] = "error"
    """What to do with a document that is not UTF-8."""
    max_document_bytes: int = Field(default=50 * MB, gt=0, le=1_000 * MB)
    """A larger document is dropped unread: a text file, unpacked; a line of jsonl; a value of a column."""
    html: Html = Html()
    limits: Limits = Limits()
    min_document_bytes: int | None = Field(default=64, ge=0)
    """Of the final text, for prose and code."""
    gopher: Gopher | None = Gopher()
    c4: C4 | None = C4()
    fineweb: FineWeb | None = FineWeb()
    split: Split = Split()
    shard_bytes: int = Field(default=64 * MB, gt=0, le=1_000 * MB)
    """Size of a shard before compression; a larger record has a shard of its own."""
