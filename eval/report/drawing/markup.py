"""Numbers, text and tables in HTML."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

from ttcjax.eval.stats.intervals import Estimate
from ttcjax.text.shown import shown

_MOST_SEEDS = 5
"""Seeds whose values stand side by side in a cell; of more it has the range."""


def text(value: object, *, lines: bool = False) -> str:
    """Return text of anyone as HTML that shows it, see `ttcjax.text.shown`."""
    return escape(shown(str(value), lines=lines))


def table(header: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "", *, words: bool = False) -> str:
    """Return a table that scrolls sideways where it is too wide.

    Args:
        header: HTML of the head's cells.
        rows: HTML of the others.
        caption: HTML above it.
        words: Whether cells hold text that may be broken into lines.
    """
    kind = ' class="words"' if words else ""
    head = "".join(f'<th scope="col">{cell}</th>' for cell in header)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>\n" for row in rows)
    # Not a caption of HTML's own, which is as narrow as its table.
    title = f'<p class="caption">{caption}</p>' if caption else ""
    label = caption or "table"
    return (
        f'{title}<div class="scroll" role="region" tabindex="0" aria-label="{label}"><table{kind}>'
        f"<thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>"
    )


def cell(point: Estimate) -> str:
    """Return an estimate in % with its interval below it, and the values of seeds."""
    ends = f"<small>{100 * point.low:.0f}-{100 * point.high:.0f}</small>"
    return f"{100 * point.mean:.1f}{ends}{by_seed(point.per_seed, 100.0)}"


def by_seed(values: Sequence[float | None], by: float = 1.0) -> str:
    """Return the values of several seeds to stand below an estimate over them; of many the range."""
    if len(values) < 2:
        return ""
    told = ["n/a" if value is None else f"{by * value:.1f}" for value in values]
    known = [by * value for value in values if value is not None]
    if len(told) > _MOST_SEEDS and known:
        return f"<small>{min(known):.1f}..{max(known):.1f}</small>"
    return f"<small>{' '.join(told)}</small>"


def difference(point: Estimate) -> str:
    """Return a difference in points with its interval below it."""
    return f"{100 * point.mean:+.1f}<small>{100 * point.low:.1f} to {100 * point.high:.1f}</small>"


def between(cell: Estimate | None) -> str:
    """Return an interval in %, to stand behind words."""
    return "" if cell is None else f", {100 * cell.low:.1f} to {100 * cell.high:.1f}"


def percent(share: float) -> str:
    """Return a share in %."""
    return f"{100 * share:.1f}%"


def number(value: float) -> str:
    """Return a number to three places."""
    return "n/a" if math.isnan(value) else f"{value:.3f}"
