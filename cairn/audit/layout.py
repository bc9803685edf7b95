"""Where the nodes of a graph go on paper: in layers, each below all that were made from it, with few crossings.

Layers by the longest path, order within them by the mean place of the neighbours (Sugiyama, Tagawa and Toda 1981,
"Methods for visual understanding of hierarchical system structures"). An edge that passes a layer has a place there
too, so it runs between the nodes and not behind them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

SWEEPS = 8  # over all layers, down and up by turns; after that nothing gets better


@dataclass(frozen=True)
class Layout:
    """A graph on paper. Lengths are pixels."""

    width: float
    height: float
    nodes: Mapping[str, tuple[float, float]]
    """The left upper corner of each node's box."""
    edges: Mapping[tuple[str, str], Sequence[tuple[float, float]]]
    """The points that each edge runs through: from the lower side of a box to the upper side of another."""


@dataclass(frozen=True)
class Measures:
    """Sizes in pixels."""

    width: float
    """Of a box."""
    height: float
    gap: float
    """Between two boxes of a layer."""
    drop: float
    """Between two layers."""
    lane: float = 14
    """What an edge takes that passes a layer."""


def layout(nodes: Sequence[str], edges: Sequence[tuple[str, str]], size: Measures) -> Layout:
    """Lay out a graph. An edge that would close a circle is left out of the layers, not of the drawing."""
    depth = _depths(nodes, edges)
    rows: list[list[str]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for node in nodes:
        rows[depth[node]].append(node)
    links: list[tuple[str, str]] = []
    chains: dict[tuple[str, str], list[str]] = {}
    for tail, head in dict.fromkeys(edges):
        chain = [tail]
        for between in range(depth[tail] + 1, depth[head]):
            lane = f"{tail} {head} {between}"
            rows[between].append(lane)
            chain.append(lane)
        chain.append(head)
        chains[tail, head] = chain
        links += [pair for pair in pairwise(chain) if depth[tail] < depth[head]]
    rows = _ordered(rows, links)
    boxes = set(nodes)
    widths = [[size.width if one in boxes else size.lane for one in row] for row in rows]
    room = [sum(row) + size.gap * (len(row) - 1) for row in widths]
    whole = max(room, default=0)
    corners: dict[str, tuple[float, float]] = {}
    middles: dict[str, tuple[float, float, float]] = {}
    for index, (row, wide) in enumerate(zip(rows, widths, strict=True)):
        x, y = (whole - room[index]) / 2, index * (size.height + size.drop)
        for one, width in zip(row, wide, strict=True):
            corners[one], middles[one] = (x, y), (x + width / 2, y, y + size.height)
            x += width + size.gap
    drawn = {pair: _points(chain, middles) for pair, chain in chains.items()}
    height = len(rows) * size.height + max(0, len(rows) - 1) * size.drop
    return Layout(whole, height, {node: corners[node] for node in nodes}, drawn)


def _points(chain: Sequence[str], middles: Mapping[str, tuple[float, float, float]]) -> list[tuple[float, float]]:
    first, last = middles[chain[0]], middles[chain[-1]]
    between = [point for lane in chain[1:-1] for x, top, bottom in [middles[lane]] for point in ((x, top), (x, bottom))]
    return [(first[0], first[2]), *between, (last[0], last[1])]


def _depths(nodes: Sequence[str], edges: Sequence[tuple[str, str]]) -> dict[str, int]:
    """The longest path to each node."""
    below: dict[str, list[str]] = {node: [] for node in nodes}
    for tail, head in edges:
        below[tail].append(head)
    depth = dict.fromkeys(nodes, 0)
    order: list[str] = []
    state: dict[str, int] = {}
    forward: list[tuple[str, str]] = []
    for start in nodes:
        stack = [(start, iter(below[start]))] if start not in state else []
        state.setdefault(start, 1)
        while stack:
            node, children = stack[-1]
            child = next(children, None)
            if child is None:
                state[node] = 2
                order.append(node)
                stack.pop()
            elif state.get(child) != 1:  # else it closes a circle
                forward.append((node, child))
                if child not in state:
                    state[child] = 1
                    stack.append((child, iter(below[child])))
    heads: dict[str, list[str]] = {}
    for tail, head in forward:
        heads.setdefault(tail, []).append(head)
    for node in reversed(order):
        for head in heads.get(node, ()):
            depth[head] = max(depth[head], depth[node] + 1)
    return depth


def _ordered(rows: list[list[str]], links: Sequence[tuple[str, str]]) -> list[list[str]]:
    above: dict[str, list[str]] = {}
    below: dict[str, list[str]] = {}
    for upper, lower in links:
        below.setdefault(upper, []).append(lower)
        above.setdefault(lower, []).append(upper)
    best, fewest = rows, _crossings(rows, below)
    for sweep in range(SWEEPS):
        down = sweep % 2 == 0
        rows = [list(row) for row in rows]
        for index in range(1, len(rows)) if down else range(len(rows) - 2, -1, -1):
            other = rows[index - 1 if down else index + 1]
            place = {one: position / max(1, len(other) - 1) for position, one in enumerate(other)}
            near = above if down else below
            now = {one: position / max(1, len(rows[index]) - 1) for position, one in enumerate(rows[index])}

            def mean(
                one: str,
                near: dict[str, list[str]] = near,
                place: dict[str, float] = place,
                now: dict[str, float] = now,
            ) -> float:
                found = [place[other] for other in near.get(one, ())]
                return sum(found) / len(found) if found else now[one]

            rows[index].sort(key=mean)
        crossings = _crossings(rows, below)
        if crossings < fewest:
            best, fewest = rows, crossings
    return best


def _crossings(rows: Sequence[Sequence[str]], below: Mapping[str, Sequence[str]]) -> int:
    count = 0
    for upper, lower in pairwise(rows):
        place = {one: position for position, one in enumerate(lower)}
        ends = [place[head] for one in upper for head in sorted(below.get(one, ()), key=lambda head: place[head])]
        count += sum(one > other for index, one in enumerate(ends) for other in ends[index + 1 :])
    return count
