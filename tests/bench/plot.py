"""The table as a picture: ours against the incumbent's, by a logarithmic scale. SVG, by hand."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import log10

from bench.report import Row

_LEFT, _WIDTH, _RIGHT, _LINE, _TOP = 400, 480, 90, 30, 56
_LOWEST, _HIGHEST = 0.001, 10.0


def _x(ratio: float) -> float:
    clipped = min(max(ratio, _LOWEST), _HIGHEST)
    share = (log10(clipped) - log10(_LOWEST)) / (log10(_HIGHEST) - log10(_LOWEST))
    return _LEFT + share * _WIDTH


def as_svg(rows: Sequence[Row], caption: str) -> str:
    """Bars of the ratios, and a mark at each goal; rows without an incumbent are left out."""
    shown = [row for row in rows if row.ratio is not None and not row.more_is_better]
    height = _TOP + _LINE * len(shown) + 30
    width = _LEFT + _WIDTH + _RIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        '<text x="10" y="18" font-size="14">This recorder by the AudioBufferProcessor of Pipecat: '
        "less is better; the line is the goal</text>",
        f'<text x="10" y="36" fill="#666">{escape(caption)}</text>',
    ]
    for exponent in range(-3, 2):
        x = _x(10.0**exponent)
        colour = "#888" if exponent == 0 else "#ddd"
        bottom = height - 24
        parts.append(f'<line x1="{x}" y1="{_TOP - 8}" x2="{x}" y2="{bottom}" stroke="{colour}"/>')
        parts.append(
            f'<text x="{x}" y="{height - 8}" text-anchor="middle">{10.0**exponent:g}</text>'
        )
    for index, row in enumerate(shown):
        parts += _bar(row, _TOP + index * _LINE)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _bar(row: Row, y: int) -> list[str]:
    ratio = row.ratio or _LOWEST
    colour = {True: "#3a9d5d", False: "#d1495b", None: "#6c7a89"}[row.met]
    length = max(1.0, _x(ratio) - _LEFT)
    parts = [
        f'<text x="{_LEFT - 8}" y="{y + 15}" text-anchor="end">{escape(row.what)}</text>',
        f'<rect x="{_LEFT}" y="{y + 3}" width="{length:.1f}" height="16" fill="{colour}"/>',
        f'<text x="{_LEFT + length + 5:.1f}" y="{y + 15}">{ratio:.3g}</text>',
    ]
    if row.limit is not None and row.goal.startswith("ratio"):
        x = _x(row.limit)
        parts.append(
            f'<line x1="{x:.1f}" y1="{y}" x2="{x:.1f}" y2="{y + 22}" stroke="black" '
            'stroke-width="2"/>'
        )
    return parts
