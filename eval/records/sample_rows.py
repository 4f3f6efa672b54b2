"""Results on disk: one Parquet row a sampled solution."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
from etils import epath

from ttcjax.runtime import parquet

SCHEMA = pa.schema(
    [
        pa.field("question", pa.string(), nullable=False, metadata={"about": "id of the question"}),
        pa.field("level", pa.int8(), nullable=False, metadata={"about": "1 (easiest) to 5, 0 unknown"}),
        pa.field("subject", pa.string(), nullable=False),
        pa.field("gold", pa.string(), nullable=False, metadata={"about": "reference answer"}),
        pa.field("strategy", pa.string(), nullable=False, metadata={"about": "`sample` in the bank"}),
        pa.field("n", pa.int32(), nullable=False, metadata={"about": "generation budget; 0 in the bank"}),
        pa.field("seed", pa.int32(), nullable=False),
        pa.field("temperature", pa.float64(), nullable=False, metadata={"about": "of sampling; 0 is greedy"}),
        pa.field("sample", pa.int32(), nullable=False, metadata={"about": "index within question and seed"}),
        pa.field("text", pa.string(), nullable=False, metadata={"about": "the solution"}),
        pa.field("answer", pa.string(), metadata={"about": "canonical final answer; null if unparsable"}),
        pa.field("correct", pa.bool_(), nullable=False),
        pa.field("finished", pa.bool_(), nullable=False, metadata={"about": "ended by itself"}),
        pa.field("step_scores", pa.list_(pa.float32()), nullable=False, metadata={"about": "one a step, in [0, 1]"}),
        pa.field("step_truth", pa.list_(pa.bool_()), metadata={"about": "one a step; null if unknown"}),
        pa.field("tokens", pa.int32(), nullable=False, metadata={"about": "tokens decoded by the policy"}),
        pa.field("lookahead_tokens", pa.int32(), nullable=False, metadata={"about": "of dropped rollouts, beside"}),
        pa.field("verifier_tokens", pa.int32(), nullable=False, metadata={"about": "tokens scored"}),
        pa.field("logprob", pa.float32(), nullable=False, metadata={"about": "of the solution, in nats"}),
        pa.field("seconds", pa.float32(), nullable=False, metadata={"about": "wall time of this row's share"}),
    ]
)
"""Columns of every bank and search shard."""


def read_folder(folder: epath.PathLike, columns: Sequence[str] | None = None) -> pa.Table:
    """Read all rows of a complete stage; see `ttcjax.runtime.parquet.read_folder`."""
    return parquet.read_folder(folder, SCHEMA, columns)
