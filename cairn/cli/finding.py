"""What a check of `cairn doctor` found."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's answer."""

    check: str
    level: Literal["ok", "warn", "fail"]
    """`fail`: a run will not work. `warn`: it will, but not as a person may expect."""
    said: str
    fix: str = ""
    """What to do, where there is something to do."""
