"""Shapes of the engine's programs, chosen for a request as a whole, and the batches that it is cut into.

XLA may round a product of one shape otherwise than that of another, so what a row's arithmetic has for shapes must not
depend on how many devices share a request: how many rows work at once on a device, in which groups, and how many
prompts and rows are read at once. A device that gets fewer questions leaves rows idle, and one that gets more takes
them in turn. What does depend on the number of devices is how many questions a device has to work through, and that
is the length of a queue; which row of a product a sample stands in follows from it, and changes nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ttcjax.engine.programs import Prompts
from ttcjax.engine.requests import Prompt, Request, pad

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
    """Shapes of what a device computes at once."""

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


def slots_of(prompt: Prompt, smallest: int) -> int:
    """Return the slots that a prompt is padded to, for both models; its last token stands in its rows."""
    return bucket(max(len(prompt.tokens), len(prompt.read)) - 1, smallest)


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


def deal(
    requests: Sequence[Request], most: Mapping[int, int], devices: int, smallest: int
) -> Iterator[tuple[list[int | None], Prompts]]:
    """Group requests by the slots of their prompts and cut the groups into padded batches.

    Args:
        requests: Any number of requests.
        most: Most requests a device in one batch, by the slots of their prompts.
        devices: Devices that share a batch.
        smallest: Fewest slots of a prompt.

    Yields:
        Which request stands at each place, `None` at padding, and the batch. Devices get equal shares, in each
        of which padding comes last.
    """
    groups: dict[int, list[int]] = {}
    for i, request in enumerate(requests):
        groups.setdefault(slots_of(request.prompt, smallest), []).append(i)
    for slots, indices in sorted(groups.items()):
        share = min(most[slots], 1 << (-(-len(indices) // devices) - 1).bit_length())
        for start in range(0, len(indices), share * devices):
            piece = indices[start : start + share * devices]
            members: list[int | None] = []
            for device in range(devices):
                dealt = piece[device::devices]
                members += [*dealt, *[None] * (share - len(dealt))]
            yield members, pad([requests[i] if i is not None else None for i in members], slots)


def split(
    prompts: Sequence[Prompt], numbers: range, group_rows: Sequence[int], devices: Sequence[int]
) -> tuple[list[Request], list[int]]:
    """Return the requests for samples of each prompt, and the prompt that each belongs to.

    Where a batch would have fewer questions than there are devices, several devices share a question, as many as
    find rows enough of it; the others stay idle.

    Args:
        prompts: The prompts.
        numbers: Indices of the samples of each.
        group_rows: Of each prompt, the rows that share it on a device.
        devices: Of each prompt, the devices that there are for it.
    """
    n, requests, owner = len(numbers), [], []
    for i, prompt in enumerate(prompts):
        parts = max(1, min(-(-n // group_rows[i]), devices[i]))
        begins = [numbers.start + n * part // parts for part in range(parts + 1)]
        requests += [Request(prompt, a, b - a) for a, b in itertools.pairwise(begins)]
        owner += [i] * parts
    return requests, owner


Piece = tuple[int, list[int]]
"""A prompt and some of its rows."""


def pieces(rows: Sequence[Sequence[tuple[int, ...]]], together: int, smallest: int) -> dict[int, list[Piece]]:
    """Cut the rows of each prompt into pieces of like length, by the slots that they are padded to.

    Args:
        rows: Some rows of tokens for each prompt.
        together: Most rows in a piece.
        smallest: Fewest slots of a row, its first token's, the prompt's last one, included.
    """
    groups: dict[int, list[Piece]] = {}
    for i, group in enumerate(rows):
        order = sorted(range(len(group)), key=lambda r: (len(group[r]), group[r]))
        for start in range(0, len(order), together):
            piece = order[start : start + together]
            groups.setdefault(row_bucket(max(len(group[piece[-1]]) + 1, smallest)), []).append((i, piece))
    for found in groups.values():
        # By length, so that rows read together need little padding.
        found.sort(key=lambda piece: len(rows[piece[0]][piece[1][-1]]))
    return groups
