"""Places on the page that only attestations can fill. The artifact says so there; a copy for a person is filled."""

from collections.abc import Mapping

from components.report.markup import Markup, join, tag


def slot(name: str, *said: Markup | str) -> Markup:
    """A place, and what stands there until it is filled."""
    begin, end = _marks(name)
    return join([Markup(begin), tag("p", *said, class_="times"), Markup(end)])


def filled(html: str, contents: Mapping[str, Markup]) -> str | None:
    """The page with something else in its places; None when it lacks one."""
    for name, content in contents.items():
        begin, end = _marks(name)
        before, begun, rest = html.partition(begin)
        _, ended, after = rest.partition(end)
        if not begun or not ended:
            return None
        html = before + begin + content.text + end + after
    return html


def _marks(name: str) -> tuple[str, str]:
    # Data cannot hold them: its `<` is escaped.
    return f"<!--{name}-->", f"<!--/{name}-->"
