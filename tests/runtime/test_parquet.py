"""Shards tell what it took to make them, beside their rows."""

import pyarrow as pa
import pytest

from ttcjax.runtime.errors import DamagedError
from ttcjax.runtime.parquet import is_whole, read_shard, sampled_tokens, shard_path, write_shard

SCHEMA = pa.schema([pa.field("question", pa.string(), nullable=False, metadata={"about": "id"})])


def test_tokens_of_shards_are_summed_and_rows_are_as_without(tmp_path):
    paths = [shard_path(tmp_path, number) for number in range(3)]
    for number, path in enumerate(paths[:2]):
        write_shard(path, [{"question": f"q{number}"}], SCHEMA, sampled=10 + number)
    assert sampled_tokens(paths[:2]) == 21
    assert sampled_tokens([]) == 0
    write_shard(paths[2], [{"question": "q0"}], SCHEMA)
    assert sampled_tokens(paths) is None, "a shard of an earlier version does not say"
    assert is_whole(paths[0], SCHEMA)
    assert read_shard(paths[0], SCHEMA).equals(read_shard(paths[2], SCHEMA), check_metadata=True)


def test_a_shard_that_is_cut_short_says_so(tmp_path):
    path = shard_path(tmp_path, 0)
    write_shard(path, [{"question": "q"}], SCHEMA, sampled=3)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(DamagedError, match=r"shard-00000\.parquet is damaged"):
        sampled_tokens([path])
