"""What verifiers say of samples, on disk: one Parquet row a sample and verifier, beside the samples' own rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from etils import epath

from ttcjax.eval.records import sample_rows
from ttcjax.runtime import parquet
from ttcjax.runtime.errors import UserError

KEY = ("question", "strategy", "n", "seed", "temperature", "sample")
"""Columns of `sample_rows.SCHEMA` that tell a sample from all others."""

SCHEMA = pa.schema(
    [
        *(sample_rows.SCHEMA.field(name) for name in KEY),
        pa.field("verifier", pa.string(), nullable=False, metadata={"about": "path of the stage that trained it"}),
        sample_rows.SCHEMA.field("step_scores"),
    ]
)
"""Columns of the shards; any number of verifiers may judge a sample, each once."""


def rows(
    samples: Iterable[Mapping[str, Any]], verifier: str, step_scores: Iterable[Sequence[float]]
) -> list[dict[str, Any]]:
    """Return rows of `SCHEMA`.

    Args:
        samples: Rows that hold `KEY`.
        verifier: Path of the stage that trained it.
        step_scores: Of each sample.
    """
    return [
        {name: sample[name] for name in KEY} | {"verifier": verifier, "step_scores": list(scores)}
        for sample, scores in zip(samples, step_scores, strict=True)
    ]


def read_folder(folder: epath.PathLike) -> pa.Table:
    """Read the rows of a complete stage; see `ttcjax.runtime.parquet.read_folder`."""
    return parquet.read_folder(folder, SCHEMA)


def judged_by(samples: pa.Table, scores: pa.Table, verifier: str) -> pa.Table:
    """Return samples with what a verifier says of them in the place of their own step scores.

    Args:
        samples: Rows with `KEY` and `step_scores`.
        scores: Rows of `SCHEMA`, those of other verifiers and samples too.
        verifier: Whose scores are wanted.

    Raises:
        UserError: The verifier has not judged a sample, or has judged one twice.
    """
    own = scores.filter(pc.field("verifier") == verifier)
    found = dict(zip(_keys(own), own["step_scores"].to_pylist(), strict=True))
    if twice := own.num_rows - len(found):
        raise UserError(f"{twice} scores of {verifier} stand twice: move their folder away and run again")
    keys = _keys(samples)
    missing = sum(key not in found for key in keys)
    if missing:
        raise UserError(
            f"{verifier} has no scores of {missing} of {len(keys)} samples: move the folder of its scores away and run "
            "again"
        )
    column = pa.array([found[key] for key in keys], samples.schema.field("step_scores").type)
    return samples.set_column(samples.schema.get_field_index("step_scores"), "step_scores", column)


def _keys(table: pa.Table) -> list[tuple[Any, ...]]:
    return list(zip(*(table[name].to_pylist() for name in KEY), strict=True))
