"""Markup in which nothing from the data can be anything but text.

Elements are built with `tag`; a plain string in it is data, and is escaped. What comes out is well-formed XML, but for
what is in style and script, and means the same to an HTML parser. Training text, names and recipe values may hold
anything at all: tags, quotes, control characters, and the marks that turn the reading direction around.
"""

import base64
import hashlib
import html
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

# What XML forbids or an HTML parser changes (C0 and C1 controls, NUL, CR, lone surrogates, noncharacters), and the
# marks with which text can be made to read in another order than it is written (Boucher and Anderson 2021, "Trojan
# Source", arXiv 2111.00169).
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufdd0-\ufdef]"
    "|[\ufffe\uffff\U0001fffe\U0001ffff\U0002fffe\U0002ffff\U0010fffe\U0010ffff]"
)
_VOID = {"meta", "wbr"}


@dataclass(frozen=True)
class Markup:
    """Text that is markup already."""

    text: str


def tag(name: str, /, *content: "Markup | str", **attributes: "str | float | None") -> Markup:
    """An element. Strings in `content` and in `attributes` are data and are escaped.

    An attribute that is a Python word takes an underscore at its end, and other underscores are hyphens: `class_`,
    `text_anchor`. None leaves an attribute out. A number is written with at most two decimals.
    """
    said = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escaped(number(value) if isinstance(value, (int, float)) else value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    inside = join(content).text
    # Only void elements may close themselves in HTML; any element may in SVG, but one rule is enough.
    return Markup(f"<{name}{said}/>" if name in _VOID else f"<{name}{said}>{inside}</{name}>")


def join(content: "Iterable[Markup | str]") -> Markup:
    """Pieces one after the other."""
    return Markup("".join(piece.text if isinstance(piece, Markup) else escaped(piece) for piece in content))


def document(
    title: str, generator: str, style: Markup, *main: Markup, script: Markup | None = None, **meta: str
) -> str:
    """A whole page that fetches nothing.

    Args:
        generator: the form of the page, for programs.
        style, script: what alone takes effect: a second wall behind the escaping.
        meta: further named values for programs.
    """
    scripts = f" script-src {_source(script)};" if script else ""
    policy = f"default-src 'none'; style-src {_source(style)};{scripts} base-uri 'none'"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="generator", content=generator),
        *(tag("meta", name=name.replace("_", "-"), content=value) for name, value in meta.items()),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("title", title),
        tag("style", style),
    )
    body = tag("body", tag("main", *main), *([tag("script", script)] if script else []))
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en').text}\n"


def _source(content: Markup) -> str:
    """How a content security policy names a style or script by what is in it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.text.encode()).digest()).decode()}'"


def escaped(data: str) -> str:
    """Data as text or as the value of an attribute."""
    return html.escape(visible(data), quote=True)


def visible(data: str) -> str:
    """Data in which what cannot be seen is named: NUL is ␀, U+202E is ⟨U+202E⟩."""
    return _INVISIBLE.sub(_named, data)


def breakable(name: str) -> Markup:
    """A name, in reading order of its own, that may be broken after a dot, a hyphen or an underscore."""
    pieces = re.split(r"(?<=[._/-])", name)
    return tag("bdi", pieces[0], *(part for piece in pieces[1:] for part in (tag("wbr"), piece)))


def script_data(value: Any) -> Markup:
    """A value as JSON inside a script element, where entities mean nothing and `</script>` must not occur."""
    said = json.dumps(value, separators=(",", ":"), sort_keys=True, allow_nan=False)
    return Markup(said.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def number(value: float) -> str:
    """A coordinate: at most two decimals, and no more digits than it needs."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def _named(found: "re.Match[str]") -> str:
    code = ord(found[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else f"⟨U+{code:04X}⟩"
