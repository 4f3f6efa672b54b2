"""The shapes that the engine's programs compute with, chosen for a request as a whole.

XLA may round a product of one shape otherwise than that of another, so what a row's arithmetic has for shapes must not
depend on how many devices share a request: how many rows work at once on a device, in which groups, and how many
prompts and rows are read at once. A device that gets fewer questions leaves rows idle, and one that gets more takes
them in turn. What does depend on the number of devices is how many questions a device has to work through, and that
is the length of a queue; which row of a product a sample stands in follows from it, and changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

DEVICES = 8
"""Devices among which a request is cut where it is too small to keep all rows busy: on fewer devices each works
through several such parts, on more some have none."""
LEAST_ROWS = 16
"""Rows below which a part is not cut on a CPU, where the time of a step grows with its rows from about there on.
On accelerators it hardly grows: there all rows work at once."""
GROUP_ROWS = 16
"""Rows of a question that share their place in a batch where there are questions enough to fill it: more share
more of the work on its prompt, and wait longer for each other when the question runs out."""


@dataclass(frozen=True)
class Shapes:
    """What a device computes at once."""

    groups: int
    """Questions under way."""
    group_rows: int
    """Rows of each."""
    prefill: int
    """Prompts read at once."""


def rounded(count: int) -> int:
    """Return the next power of two from `count` on, so that few shapes are compiled."""
    return 1 << max(count - 1, 0).bit_length()


def bucket(length: int, smallest: int = 32) -> int:
    """Return the padded length for `length`: `smallest`, or the next power of two above that."""
    return max(smallest, rounded(length))


def row_bucket(length: int) -> int:
    """Return the padded length of rows that are read whole: a multiple of 32 up to 128, then a power of two, of which
    no more is read than the rows need."""
    return -(-length // 32) * 32 if length <= 128 else rounded(length)


def choose(
    questions: int, n: int, *, rows: int, most: int, cpu: bool, group_rows: int | None = None, reads: bool = False
) -> Shapes:
    """Return the shapes for `questions` questions with `n` rows each.

    Args:
        questions: Of the request, over all devices.
        n: Rows a question, at most.
        rows: Most rows at once on a device.
        most: Most questions of a batch on a device.
        cpu: Whether devices are CPU cores.
        group_rows: Rows that share a question where these are given; they may be more than `rows`.
        reads: Whether rows are read whole, which takes an accelerator time that grows with the rows too.
    """
    questions = rounded(questions)
    least = LEAST_ROWS if cpu or reads else rows
    at_once = min(rows, max(least, -(-questions * n // DEVICES)))
    if group_rows is None:
        group_rows = n if questions * n <= at_once else min(n, at_once, max(GROUP_ROWS, at_once // questions))
    prefill = max(1, questions // DEVICES)
    return Shapes(
        groups=min(questions, max(1, at_once // group_rows)),
        group_rows=group_rows,
        prefill=min(prefill, rounded(most + 1) // 2),
    )
