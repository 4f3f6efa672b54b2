"""Output laid out for a terminal or a pipe by Rich: text of users and models stands in it as `shown` returns it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from ttcjax.text.shown import protect, shown


class Shown:
    """Text of anyone as a part of what a console prints: never markup, and only with what the stream can hold.

    Columns are measured as the text is shown there.

    Args:
        text: Any string.
        style: Rich's name of a style, such as `bold`.
        lines: As for `shown`.
        wrap: Whether a line that is too long may be broken.
    """

    def __init__(self, text: str, style: str = "", *, lines: bool = True, wrap: bool = True):
        self._text, self._style, self._lines, self._wrap = text, style, lines, wrap

    def _on(self, console: Console) -> Text:
        text = shown(self._text, lines=self._lines, holds=console.encoding)
        return Text(text, self._style) if self._wrap else Text(text, self._style, no_wrap=True, overflow="ignore")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        yield self._on(console)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement.get(console, options, self._on(console))


class SafeTable(Table):
    """A table in which every string is `Shown`, and all of it: Rich cuts words off that are longer than a column."""

    def add_column(self, header: RenderableType = "", *args: Any, **kwargs: Any) -> None:
        if not kwargs.get("no_wrap"):
            kwargs.setdefault("overflow", "fold")
        super().add_column(Shown(header) if isinstance(header, str) else header, *args, **kwargs)

    def add_row(self, *cells: RenderableType | None, **kwargs: Any) -> None:
        super().add_row(*(Shown(cell) if isinstance(cell, str) else cell for cell in cells), **kwargs)


def console(*, stderr: bool = False) -> Console:
    """Return where tables and text go: stdout or stderr, made to take any text; strings are not markup."""
    protect(sys.stderr if stderr else sys.stdout)
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)
