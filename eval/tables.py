"""Numbers in tables on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text


def table(title: str, columns: Sequence[str]) -> Table:
    """Return an empty table with its first column for names and the others for numbers."""
    # A title wider than its table would be broken into lines as narrow as the table.
    name = Text(f"\n{title}", no_wrap=True, overflow="ignore")
    found = Table(title=name, title_justify="left", title_style="bold", box=None, padding=(0, 1, 0, 0))
    found.add_column(columns[0])
    for column in columns[1:]:
        found.add_column(column, justify="right", no_wrap=True)
    return found


def cell(point: dict[str, float]) -> str:
    """Return an estimate in % with its interval below it."""
    return f"{100 * point['mean']:.1f}\n[dim]{100 * point['low']:.0f}-{100 * point['high']:.0f}[/]"


def difference_cell(point: dict[str, Any]) -> str:
    """Return a difference in points with its interval below it, bold where that holds no zero."""
    text = f"{100 * point['mean']:+.1f}\n[dim]{100 * point['low']:.0f}..{100 * point['high']:.0f}[/]"
    clear = point["low"] > 0 or point["high"] < 0
    return f"[bold]{text}[/]" if clear else text


def saved_cell(point: dict[str, Any]) -> str:
    """Return how many times the compute another needs, with its interval below it; see `optimal.compute_saved`."""
    sign = "" if point["reached"] else "> "
    return f"{sign}{point['times']:.1f}\n[dim]{point['low']:.1f}-{point['high']:.1f}[/]"
