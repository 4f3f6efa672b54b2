"""The steps of solutions as they stand in rows: how many, and whether one stands there twice."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
from etils import epath

from ttcjax.eval.records import sample_rows
from ttcjax.runtime import records
from ttcjax.runtime.parquet import read_shard
from ttcjax.text.steps import StepFormat


def lines_of(text: str, steps: StepFormat) -> tuple[int, bool]:
    """Return how many steps a solution has, blank ones aside, and whether one stands in it twice or more.

    Args:
        text: The solution.
        steps: Where a step ends, the task's `steps`.
    """
    lines = [line.strip() for line in steps.split(text) if line.strip()]
    return len(lines), len(set(lines)) < len(lines)


def with_lines(table: pa.Table, folder: epath.PathLike, steps: StepFormat) -> pa.Table:
    """Return rows with the columns `lines` and `repeated`, see `lines_of`.

    Texts are read a shard at a time and dropped at once: those of a large bank do not fit into memory together.

    Args:
        table: What `rows.read_folder` read from the folder, in its order.
        folder: Of the bank or the search.
        steps: The task's.

    Raises:
        UserError: A shard is missing or corrupt.
    """
    counts, repeats = [], []
    for path, digest in records.members(folder).items():
        for batch in read_shard(path, sample_rows.SCHEMA, ("text",), sha256=digest).to_batches(max_chunksize=_BATCH):
            found = [lines_of(text, steps) for text in batch["text"].to_pylist()]
            counts += [count for count, _ in found]
            repeats += [repeat for _, repeat in found]
    return table.append_column("lines", pa.array(counts, pa.int32())).append_column(
        "repeated", pa.array(repeats, pa.bool_())
    )


def texts_at(folder: epath.PathLike, places: Sequence[int]) -> list[str]:
    """Return the texts of some rows of a folder, counted in the order of `rows.read_folder`."""
    found: dict[int, str] = {}
    start = 0
    for path in records.members(folder):
        count = read_shard(path, sample_rows.SCHEMA, ("sample",)).num_rows
        inside = [place - start for place in places if start <= place < start + count]
        if inside:
            texts = read_shard(path, sample_rows.SCHEMA, ("text",))["text"]
            found |= {start + place: texts[place].as_py() for place in inside}
        start += count
    return [found[place] for place in places]


_BATCH = 10_000
