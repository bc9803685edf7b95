"""The tables that `dvc plots` draws runs from, side by side: it reads CSV, not the JSON lines of a training log.

training.csv      step, loss, learning rate and gradient norm of the logged steps; of a long run, those that matter
development.csv   bits per byte on the development split, or the loss of masked tokens: one row for each domain and step
                  at which it was scored
"""

import csv
import math
import re
from collections.abc import Iterable
from io import StringIO

from components.report.material import COLUMNS, Log, Material
from components.report.svg import thin
from components.report.training import by_size

BUCKETS = 250  # of a long log: DVC puts every row into its page, for every revision


def training(log: Log) -> str:
    """Every logged step; of a long log the first, lowest, highest and last loss of each stretch, and its end."""
    count = len(log.steps)
    rows: Iterable[int] = range(count)
    if count > 4 * BUCKETS:
        places = [index * BUCKETS / count for index in range(count)]
        rows = sorted({index for run in thin(places, log.loss) for index in run} | {count - 1})
    columns = (log.steps, log.tokens, log.loss, log.lr, log.grad_norm)
    return _csv(("step", *COLUMNS), ([_written(column[row]) for column in columns] for row in rows))


def development(material: Material, most: int) -> str:
    """What was measured on the `most` domains that have most held-out text; of many steps, evenly spaced ones."""
    measured = by_size(material)[:most]
    steps = sorted({row for _, found in measured for row in found})
    kept = {*steps[:: max(1, len(steps) // BUCKETS)], *steps[-1:]}
    lines = []
    for name, found in measured:
        # DVC writes values into a script as they are, and `</script>` would end it.
        safe = re.sub(r"[^\w .:/+-]", "_", name)
        lines += [(_written(material.log.steps[row]), safe, _written(found[row])) for row in found if row in kept]
    return _csv(("step", "domain", "score"), lines)


def _csv(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def _written(value: float) -> str:
    return f"{value:.10g}" if math.isfinite(value) else ""
