"""Results on disk: one Parquet row a sampled solution, in shards that are whole or absent."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from etils import epath

from ttcjax.errors import UserError

SCHEMA = pa.schema(
    [
        pa.field("question", pa.string(), nullable=False, metadata={"about": "id of the question"}),
        pa.field("level", pa.int8(), nullable=False, metadata={"about": "1 (easiest) to 5, 0 unknown"}),
        pa.field("subject", pa.string(), nullable=False),
        pa.field("gold", pa.string(), nullable=False, metadata={"about": "reference answer"}),
        pa.field("strategy", pa.string(), nullable=False, metadata={"about": "`sample` in the bank"}),
        pa.field("n", pa.int32(), nullable=False, metadata={"about": "generation budget; 0 in the bank"}),
        pa.field("seed", pa.int32(), nullable=False),
        pa.field("sample", pa.int32(), nullable=False, metadata={"about": "index within question and seed"}),
        pa.field("text", pa.string(), nullable=False, metadata={"about": "the solution"}),
        pa.field("answer", pa.string(), metadata={"about": "canonical final answer; null if unparsable"}),
        pa.field("correct", pa.bool_(), nullable=False),
        pa.field("finished", pa.bool_(), nullable=False, metadata={"about": "ended by itself"}),
        pa.field("step_scores", pa.list_(pa.float32()), nullable=False, metadata={"about": "one a step, in [0, 1]"}),
        pa.field("step_truth", pa.list_(pa.bool_()), metadata={"about": "one a step; null if unknown"}),
        pa.field("tokens", pa.int32(), nullable=False, metadata={"about": "tokens decoded by the policy"}),
        pa.field("verifier_tokens", pa.int32(), nullable=False, metadata={"about": "tokens scored"}),
        pa.field("logprob", pa.float32(), nullable=False, metadata={"about": "of the solution, in nats"}),
        pa.field("seconds", pa.float32(), nullable=False, metadata={"about": "wall time of this row's share"}),
    ]
)
"""Columns of every bank and search shard."""

VALIDATION_SCHEMA = pa.schema(
    [
        pa.field("step_scores", pa.list_(pa.float32()), nullable=False),
        pa.field("step_truth", pa.list_(pa.bool_()), nullable=False),
    ]
)
"""Columns of the file with PRM scores of validation solutions, from which thresholds are chosen."""


def shard_path(folder: epath.PathLike, index: int) -> epath.Path:
    """Return the path of shard `index` of a folder."""
    return epath.Path(folder) / f"shard-{index:05d}.parquet"


def write_shard(path: epath.PathLike, rows: Sequence[Mapping[str, Any]], schema: pa.Schema = SCHEMA) -> None:
    """Write rows as one shard, under another name until it is whole.

    Args:
        path: Local path or bucket path (`gs://`); the folder is made if needed.
        rows: One mapping a row, with exactly the columns of `schema`.
        schema: `SCHEMA` or another.

    Raises:
        ValueError: A row lacks a column, has one too many, or holds null where the schema allows none.
        OSError: The file cannot be written, e.g. because the disk is full.
    """
    for row in rows:
        if odd := set(row) ^ set(schema.names):
            raise ValueError(f"row and schema differ in column {', '.join(sorted(odd))}")
    table = pa.Table.from_pylist([dict(row) for row in rows], schema=schema)
    for field, column in zip(schema, table.columns, strict=True):
        if column.null_count and not field.nullable:
            raise ValueError(f"column {field.name} holds null")
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    write_bytes(path, sink.getvalue())


def write_bytes(path: epath.PathLike, content: bytes) -> None:
    """Write a file under another name, then rename it, so that `path` never holds half of it.

    Raises:
        OSError: The file cannot be written, e.g. because the disk is full; what was there before stays.
    """
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.parent / f"{path.name}.partial"
    try:
        partial.write_bytes(content)
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def read_shard(
    path: epath.PathLike,
    columns: Sequence[str] | None = None,
    schema: pa.Schema = SCHEMA,
    delete: epath.PathLike | None = None,
) -> pa.Table:
    """Read one shard, checking its checksums.

    Args:
        path: The file.
        columns: Columns to read, in this order; all by default.
        schema: What the file must hold.
        delete: What the user is told to delete if the file is bad, so that running again makes it anew; the
            file itself by default, which mends a stage that is still at work.

    Raises:
        UserError: The file is corrupt or truncated, or was written with other columns.
    """
    path = epath.Path(path)
    mend = f"delete {'it' if delete is None else delete} and run again"
    names = list(schema.names if columns is None else columns)
    wanted = pa.schema([schema.field(name) for name in names])
    try:
        file = pq.ParquetFile(io.BytesIO(path.read_bytes()), page_checksum_verification=True)
        if any(schema.field(name).type != _type_of(file.schema_arrow, name) for name in names):
            raise UserError(f"{path} was written by another version (its columns differ): {mend}")
        return file.read(names).select(names).cast(wanted)
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist: run the stage that writes it") from error
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} is corrupt or truncated: {mend}") from error


def read_folder(folder: epath.PathLike, columns: Sequence[str] | None = None) -> pa.Table:
    """Read all shards of a complete stage's folder and its direct subfolders, in the order of their paths.

    Raises:
        UserError: There is no shard, one is missing from a numbered row of shards, or one is corrupt.
    """
    folder = epath.Path(folder)
    paths = sorted([*folder.glob("shard-[0-9]*.parquet"), *folder.glob("*/shard-[0-9]*.parquet")], key=str)
    if not paths:
        raise UserError(f"{folder} holds no results: run the stage that writes it first")
    present = {str(path) for path in paths}
    for path in paths:
        index = int(path.stem.removeprefix("shard-"))
        if index and str(shard_path(path.parent, index - 1)) not in present:
            missing = shard_path(path.parent, index - 1)
            raise UserError(f"{missing} is missing: delete {folder} and run again")
    return pa.concat_tables(read_shard(path, columns, delete=folder) for path in paths)


def _type_of(schema: pa.Schema, name: str) -> pa.DataType | None:
    return schema.field(name).type if name in schema.names else None
