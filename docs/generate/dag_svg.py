"""Draws a graph of steps as SVG, from top to bottom. The colours follow the reader's light or dark scheme."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 186, 52, 24, 66, 28

STYLE = """
  .card { fill: #ffffff; stroke: #d8dee4 }
  .node { fill: #f6f8fa; stroke: #c3ccd5 }
  .completed .node { fill: #eefaf1; stroke: #2f9e58 }
  .failed .node { fill: #fff0f0; stroke: #d1453b }
  .skipped .node { fill: none; stroke-dasharray: 4 4 }
  .event .node { fill: #e7f3f8; stroke: #1f7a99 }
  .name { font: 600 14px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; fill: #1b2630 }
  .status, .label { font: 12px system-ui, "Segoe UI", "Helvetica Neue", "DejaVu Sans", sans-serif; fill: #57636f }
  .skipped .name { fill: #7b8794 }
  .skipped .status { fill: #7b8794 }
  .mark { fill: none; stroke-width: 2.4; stroke-linecap: round; stroke-linejoin: round; stroke: #7b8794 }
  .completed .mark { stroke: #2f9e58 }
  .failed .mark { stroke: #d1453b }
  .event .mark { stroke: #1f7a99 }
  .edge { fill: none; stroke: #2f9e58; stroke-width: 1.8 }
  .dead { stroke: #aab4be; stroke-dasharray: 4 4 }
  .tip { fill: #2f9e58 }
  .tip-dead { fill: #aab4be }
  .plate { fill: #ffffff; stroke: #d8dee4 }
  @media (prefers-color-scheme: dark) {
    .card { fill: #12191f; stroke: #2b3640 }
    .node { fill: #1a232b; stroke: #46535f }
    .completed .node { fill: #12281d; stroke: #3fb56d }
    .failed .node { fill: #331a1a; stroke: #e5695f }
    .event .node { fill: #10262f; stroke: #45a5c6 }
    .name { fill: #e6edf3 }
    .status, .label { fill: #a3b0bc }
    .skipped .name, .skipped .status { fill: #84919d }
    .completed .mark, .edge { stroke: #3fb56d }
    .failed .mark { stroke: #e5695f }
    .event .mark { stroke: #45a5c6 }
    .dead { stroke: #55626e }
    .tip { fill: #3fb56d }
    .tip-dead { fill: #55626e }
    .plate { fill: #12191f; stroke: #2b3640 }
  }
"""

MARKS = {
    "completed": "M -5 0 L -1.5 4 L 5.5 -4.5",
    "failed": "M -4 -4 L 4 4 M 4 -4 L -4 4",
    "skipped": "M -5 0 L 5 0",
    "event": "M 2 -7 L -4 1 L 4 -1 L -2 7",
}


@dataclass(frozen=True)
class Node:
    id: str
    name: str
    kind: str  # a status of a step, or "event"
    status: str  # the second line


@dataclass(frozen=True)
class Edge:
    source: str
    target: str
    taken: bool
    label: str


def draw(title: str, nodes: Sequence[Node], edges: Sequence[Edge]) -> str:
    """The graph as a document. Each edge must lead to a later node."""
    centres, (width, height) = _layout(nodes, edges)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{escape(title)}">',
        f"<title>{escape(title)}</title>",
        f"<style>{STYLE}</style>",
        *(
            f'<marker id="{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
            f'markerUnits="userSpaceOnUse" orient="auto"><path class="{name}" d="M 0 0.5 L 8 4 L 0 7.5 z"/></marker>'
            for name in ("tip", "tip-dead")
        ),
        f'<rect class="card" x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="14"/>',
        *(_edge(edge, centres) for edge in sorted(edges, key=lambda edge: edge.taken)),
        *(_label(edge, centres) for edge in edges if edge.label),
        *(_node(node, *centres[node.id]) for node in nodes),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _layout(nodes: Sequence[Node], edges: Sequence[Edge]) -> tuple[dict[str, tuple[float, float]], tuple[int, int]]:
    """The centre of each node, and the size of the drawing. A node is one row below the last of the nodes before it."""
    row: dict[str, int] = {}
    parents: dict[str, list[str]] = {node.id: [] for node in nodes}
    for edge in edges:
        parents[edge.target].append(edge.source)
    for node in nodes:
        row[node.id] = max((row[parent] + 1 for parent in parents[node.id]), default=0)
    x: dict[str, float] = {}
    for number in range(max(row.values()) + 1):
        members = [node.id for node in nodes if row[node.id] == number]
        wanted = {name: sum(x[p] for p in parents[name]) / max(len(parents[name]), 1) for name in members}
        members.sort(key=lambda name: wanted[name])  # of equal ones, the first stays first
        x.update(_spread([wanted[name] for name in members], members))
    left = min(x.values())
    width = max(x.values()) - left + WIDTH + 2 * MARGIN
    height = (max(row.values()) + 1) * (HEIGHT + GAP_Y) - GAP_Y + 2 * MARGIN
    centres = {
        name: (
            round(x[name] - left + WIDTH / 2 + MARGIN, 1),
            row[name] * (HEIGHT + GAP_Y) + HEIGHT / 2 + MARGIN,
        )
        for name in x
    }
    return centres, (round(width), height)


def _spread(wanted: Sequence[float], members: Sequence[str]) -> dict[str, float]:
    """Places in the order of `members`, as close to the wanted ones as the width of a node lets them."""
    step = WIDTH + GAP_X
    places: list[float] = []
    for place in wanted:
        places.append(max(place, places[-1] + step) if places else place)
    shift = sum(place - want for place, want in zip(places, wanted, strict=True)) / len(places)
    return {name: place - shift for name, place in zip(members, places, strict=True)}


def _edge(edge: Edge, centres: dict[str, tuple[float, float]]) -> str:
    (x1, y1), (x2, y2) = centres[edge.source], centres[edge.target]
    y1, y2 = y1 + HEIGHT / 2, y2 - HEIGHT / 2
    end = y2 - (36 if edge.label else 8)  # straight behind the label, and into the tip
    middle = (y1 + end) / 2
    dead, tip = ("", "tip") if edge.taken else (" dead", "tip-dead")
    path = f"M {x1} {y1} C {x1} {middle}, {x2} {middle}, {x2} {end} L {x2} {y2}"
    return f'<path class="edge{dead}" d="{path}" marker-end="url(#{tip})"/>'


def _label(edge: Edge, centres: dict[str, tuple[float, float]]) -> str:
    x, y = centres[edge.target]
    y -= HEIGHT / 2 + 22
    width = len(edge.label) * 6.5 + 16
    return (
        f'<rect class="plate" x="{x - width / 2}" y="{y - 10}" width="{width}" height="20" rx="10"/>'
        f'<text class="label" x="{x}" y="{y + 4}" text-anchor="middle">{escape(edge.label)}</text>'
    )


def _node(node: Node, x: float, y: float) -> str:
    left = x - WIDTH / 2
    radius = HEIGHT / 2 if node.kind == "event" else 9
    return (
        f'<g class="{node.kind}">'
        f'<rect class="node" x="{left}" y="{y - HEIGHT / 2}" width="{WIDTH}" height="{HEIGHT}" rx="{radius}"/>'
        f'<path class="mark" transform="translate({left + 22} {y})" d="{MARKS.get(node.kind, "")}"/>'
        f'<text class="name" x="{left + 42}" y="{y - 3}">{escape(node.name)}</text>'
        f'<text class="status" x="{left + 42}" y="{y + 15}">{escape(node.status)}</text></g>'
    )
