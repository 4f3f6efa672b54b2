"""Tables of results in Parquet, in shards that are whole or absent."""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from etils import epath

from ttcjax.runtime import faults, records
from ttcjax.runtime.errors import DamagedError, MachineError, UserError
from ttcjax.runtime.files import is_there, write_bytes

logger = logging.getLogger(__name__)

_SAMPLED = b"ttcjax.sampled_tokens"


def shard_path(folder: epath.PathLike, index: int, cell: str = "") -> epath.Path:
    """Return the path of shard `index` of a folder, or of a cell of it where several stand there beside each other."""
    return epath.Path(folder) / f"{cell or 'shard'}-{index:05d}.parquet"


def shard_names(questions: int, shard_questions: int) -> list[str]:
    """Return the names of the shards of so many questions, so many a shard."""
    return [shard_path("", number).name for number in range(-(-questions // shard_questions))]


def write_shard(
    path: epath.PathLike, rows: Sequence[Mapping[str, Any]], schema: pa.Schema, *, sampled: int | None = None
) -> None:
    """Write rows as one shard, under another name until it is whole.

    Args:
        path: Local path or bucket path (`gs://`); the folder is made if needed.
        rows: One mapping a row, with exactly the columns of `schema`.
        schema: Columns, their types, and which may hold null.
        sampled: Tokens that the policy read and wrote to make the shard, what no row tells included; see
            `sampled_tokens`.

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
    if sampled is not None:
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), _SAMPLED: str(sampled)})
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    write_bytes(path, sink.getvalue())


def read_shard(
    path: epath.PathLike, schema: pa.Schema, columns: Sequence[str] | None = None, *, sha256: str | None = None
) -> pa.Table:
    """Read one shard, checking its checksums.

    Args:
        path: The file.
        schema: What the file must hold.
        columns: Columns to read, in this order; all by default.
        sha256: Of the bytes that were written, where it is known.

    Raises:
        DamagedError: The file is corrupt, cut short, or has other bytes than were written.
        MachineError: The machine does not let it be read.
        UserError: It is not there, or was written with other columns.
    """
    path = epath.Path(path)
    names = list(schema.names if columns is None else columns)
    wanted = pa.schema([schema.field(name) for name in names])
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist: run the stage that writes it") from error
    except OSError as error:  # No byte was read, so nothing is known to be damaged.
        faults.raise_explained(error)
        raise
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise records.damaged(path, "it has other bytes than were written")
    try:
        file = pq.ParquetFile(io.BytesIO(content), page_checksum_verification=True)
        if any(schema.field(name).type != _type_of(file.schema_arrow, name) for name in names):
            raise UserError(
                f"{path} was written by another version (its columns differ): move {path.parent} away and run again"
            )
        return file.read(names).select(names).cast(wanted)
    except MemoryError as error:
        faults.raise_explained(error)
        raise
    except (pa.ArrowException, OSError) as error:  # Arrow's checksums fail with OSError.
        raise records.damaged(path, "corrupt or cut short") from error


def sampled_tokens(paths: Iterable[epath.PathLike]) -> int | None:
    """Return how many tokens the policy read and wrote to make some shards; `None` where one does not say.

    Raises:
        DamagedError: A file is corrupt or cut short.
    """
    total = 0
    for path in paths:
        try:
            metadata = pq.read_schema(io.BytesIO(epath.Path(path).read_bytes())).metadata or {}
        except (pa.ArrowException, OSError) as error:
            faults.raise_explained(error)
            raise records.damaged(epath.Path(path), "corrupt or cut short") from error
        if _SAMPLED not in metadata:
            return None
        total += int(metadata[_SAMPLED])
    return total


def read_folder(folder: epath.PathLike, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    """Read the rows of a complete stage: its own files, in the order of their names, each compared with its hash.

    Raises:
        UserError: The stage is not complete, holds no rows, or a file of it cannot be read; see `read_shard`.
    """
    folder = epath.Path(folder)
    tables = [read_shard(path, schema, columns, sha256=digest) for path, digest in records.members(folder).items()]
    if not tables:
        raise UserError(f"{folder} holds no rows: run the {folder.name} stage first")
    return pa.concat_tables(tables)


def is_whole(path: epath.PathLike, schema: pa.Schema) -> bool:
    """Return whether a shard is there and can be read; one that is damaged, or of other columns, is to be made again.

    Raises:
        MachineError: The machine does not let it be read.
    """
    if not is_there(path):
        return False
    try:
        read_shard(path, schema)
    except MachineError:
        raise
    except UserError as error:
        what = "is damaged" if isinstance(error, DamagedError) else "has columns of another version"
        logger.warning("%s %s and is made again", path, what)
        return False
    return True


def _type_of(schema: pa.Schema, name: str) -> pa.DataType | None:
    return schema.field(name).type if name in schema.names else None
