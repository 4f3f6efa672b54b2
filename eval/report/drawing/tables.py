"""Numbers in tables on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from ttcjax.eval.stats.intervals import Estimate
from ttcjax.eval.stats.savings import Saved
from ttcjax.text.terminal import SafeTable, Shown


def table(title: str, columns: Sequence[str]) -> Table:
    """Return an empty table with its first column for names and the others for numbers.

    Strings in it are shown as text of anyone; what is styled is given as Rich's own text.
    """
    # A title wider than its table would be broken into lines as narrow as the table.
    found = SafeTable(title_justify="left", box=None, padding=(0, 1, 0, 0))
    found.title = Shown(f"\n{title}", wrap=False)  # type: ignore[assignment]  # It is rendered as all else.
    found.add_column(columns[0])
    for column in columns[1:]:
        found.add_column(column, justify="right", no_wrap=True)
    return found


def two_lines(first: str, second: str, style: str = "") -> Text:
    """Return numbers with others below them, smaller in weight."""
    return Text.assemble((first, style), "\n", (second, f"{style} dim"))


def cell(point: Estimate) -> Text:
    """Return an estimate in % with its interval below it."""
    return two_lines(f"{100 * point.mean:.1f}", f"{100 * point.low:.0f}-{100 * point.high:.0f}")


def difference_cell(point: Estimate) -> Text:
    """Return a difference in points with its interval below it, bold where that holds no zero."""
    interval = f"{100 * point.low:.0f}..{100 * point.high:.0f}"
    clear = point.low > 0 or point.high < 0
    return two_lines(f"{100 * point.mean:+.1f}", interval, "bold" if clear else "")


def saved_cell(point: Saved) -> Text:
    """Return how many times the compute another needs, with its interval below it; see `savings.compute_saved`."""
    sign = "" if point.reached else "> "
    more = "" if point.high_reached else "+"
    return two_lines(f"{sign}{point.times:.1f}", f"{point.low:.1f}-{point.high:.1f}{more}")
