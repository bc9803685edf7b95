"""What a person decides about the report."""

from pydantic import Field

from cairn.recipe import Section


class Report(Section):
    """How much of the run the page shows. Nothing here changes a number."""

    domains: int = Field(default=12, gt=0)
    """Domains, sources, licences and reasons that are shown one by one, the largest first; the rest is one line."""
    samples: int = Field(default=6, ge=0)
    """Continuations to show, at most."""
