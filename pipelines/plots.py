"""What `dvc plots` draws, and how: a page that needs no network, and the form of a drawing.

DVC's own page loads Vega from a content delivery network and is blank without it. Ours draws the same Vega-Lite
specifications itself, as far as a line chart needs; other programs (an editor, a server) read them as they are.
"""

from pathlib import Path
from typing import Any

from cairn.lineage.environment import ROOT

# Where DVC looks for templates. The page it must be told of: `plots.html_template` in .dvc/config.
PLACE = Path(".dvc", "plots")


def files() -> dict[Path, str]:
    """Path in a project to content: the page, and the specifications that `section` names."""
    folder = ROOT / "pipelines" / "templates"
    return {PLACE / path.name: path.read_text(encoding="utf-8") for path in sorted(folder.iterdir())}


def section(report: Path) -> list[dict[str, Any]]:
    """The `plots` of dvc.yaml, over the tables of the report artifact."""
    training, development = str(report / "training.csv"), str(report / "development.csv")
    drawn = [
        ("loss", training, "loss", "Training loss, nats per predicted token", "cairn"),
        ("development", development, "score", "Development split, bits per byte or masked loss", "cairn_domains"),
        ("gradient_norm", training, "grad_norm", "Gradient norm, before clipping", "cairn"),
        ("learning_rate", training, "lr", "Learning rate", "cairn"),
    ]
    return [
        {name: {"x": "step", "y": {path: column}, "title": title, "template": template}}
        for name, path, column, title, template in drawn
    ]
