"""Numbers as people read them. Nothing here depends on a locale."""

import math

NARROW = "\u00a0"  # a space at which no line breaks


def whole(value: float) -> str:
    """12,345."""
    return f"{value:,.0f}"


def short(value: float) -> str:
    """Three digits and a letter: 2.66 M."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        # Just below a size, rounding to three digits would reach it.
        if value >= size * 0.9995:
            return f"{_three(value / size)}{NARROW}{letter}"
    return _three(value)


def spelled(value: float) -> str:
    """In a sentence: 23,168; 2.66 million."""
    for size, word in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if value >= size * 0.9995:
            return f"{_three(value / size)}{NARROW}{word}"
    return whole(value)


def size(value: float) -> str:
    """Bytes: 7.92 MB."""
    said = short(value)
    return f"{said}B" if NARROW in said else f"{said}{NARROW}B"


def share(part: float, of: float) -> str:
    """12.3 %; what is there but less than can be written is said to be so."""
    if not of:
        return "–"
    percent = 100 * part / of
    if part and percent < 0.05:
        return f"<{NARROW}0.1{NARROW}%"
    return f"{percent:.1f}{NARROW}%"


def bits(value: float, decimals: int = 3) -> str:
    """Bits per byte, or a dash where there are none."""
    return f"{value:.{decimals}f}" if math.isfinite(value) else "–"


def significant(value: float) -> str:
    """A measured number with four digits, or a dash where it is none."""
    return f"{value:.4g}" if math.isfinite(value) else "–"


def plural(number: int, one: str, many: str | None = None) -> str:
    """1 document, 2 documents."""
    return f"{whole(number)} {one if number == 1 else many or one + 's'}"


def _three(value: float) -> str:
    if value >= 99.95:
        return f"{value:.0f}"
    return f"{value:.3g}" if value != int(value) else f"{value:.0f}"
