import pytest
from etils import epath

from ttcjax.eval.records import sample_rows
from ttcjax.runtime import parquet
from ttcjax.runtime.errors import DamagedError, UserError
from ttcjax.testing import folders
from ttcjax.verify.quality import VALIDATION_SCHEMA

ROW = {
    "question": "q0",
    "level": 3,
    "subject": "algebra",
    "gold": "7",
    "strategy": "sample",
    "n": 0,
    "seed": 2,
    "temperature": 1.0,
    "sample": 0,
    "text": "1 + 6 = 7\nAnswer: 7",
    "answer": "7",
    "correct": True,
    "finished": True,
    "step_scores": [0.5, 0.75],
    "step_truth": [True, True],
    "tokens": 12,
    "lookahead_tokens": 0,
    "verifier_tokens": 12,
    "logprob": -1.5,
    "seconds": 0.25,
}
UNPARSABLE = ROW | {"sample": 1, "answer": None, "correct": False, "step_scores": [], "step_truth": None}


@pytest.fixture
def folder(tmp_path):
    for index in range(3):
        parquet.write_shard(
            parquet.shard_path(tmp_path / "bank", index),
            [ROW | {"question": f"q{index}"}, UNPARSABLE],
            sample_rows.SCHEMA,
        )
    folders.complete(tmp_path / "bank")
    return epath.Path(tmp_path / "bank")


def test_rows_come_back_as_written_and_leave_no_scratch_file(folder):
    assert parquet.read_shard(folder / "shard-00000.parquet", sample_rows.SCHEMA).to_pylist() == [ROW, UNPARSABLE]
    assert [r["question"] for r in sample_rows.read_folder(folder, ["question"]).to_pylist()][::2] == ["q0", "q1", "q2"]
    assert sorted(p.name for p in folder.iterdir()) == [f"shard-0000{i}.parquet" for i in range(3)]


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty"])
def test_a_damaged_shard_is_named_with_the_fix_in_one_line(folder, damage):
    path = folder / "shard-00001.parquet"
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[20] ^= 0xFF  # inside the first page: only its checksum can tell
    path.write_bytes(bytes(content) if damage == "flip" else bytes(content[: len(content) // 2] * (damage != "empty")))
    with pytest.raises(UserError) as error:
        parquet.read_shard(path, sample_rows.SCHEMA)
    assert str(error.value).startswith(f"{path} is damaged (corrupt or cut short): run `ttcjax run CONFIG`")
    with pytest.raises(DamagedError, match=rf"{path.name} is damaged \(it has other bytes than were written"):
        sample_rows.read_folder(folder)


def test_only_a_sound_shard_counts_as_whole(folder, caplog):
    path = folder / "shard-00001.parquet"
    assert parquet.is_whole(path, sample_rows.SCHEMA)
    assert not parquet.is_whole(folder / "shard-00009.parquet", sample_rows.SCHEMA)
    assert not caplog.records, "a shard that is not there yet is nothing to warn of"
    content = bytearray(path.read_bytes())
    content[20] ^= 0xFF  # inside the first page: only its checksum can tell
    path.write_bytes(bytes(content))
    assert not parquet.is_whole(path, sample_rows.SCHEMA), "a damaged shard would be kept and break the report"
    assert "is damaged and is made again" in caplog.text


def test_a_lost_shard_is_noticed(folder):
    (folder / "shard-00001.parquet").unlink()
    with pytest.raises(UserError, match=r"shard-00001.parquet does not exist"):
        sample_rows.read_folder(folder)


def test_an_empty_folder_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match="run the bank stage first"):
        sample_rows.read_folder(tmp_path / "bank")


def test_shards_with_other_columns_are_refused(tmp_path):
    path = tmp_path / "shard-00000.parquet"
    parquet.write_shard(path, [{"step_scores": [0.5], "step_truth": [True]}], VALIDATION_SCHEMA)
    assert parquet.read_shard(path, VALIDATION_SCHEMA).num_rows == 1
    with pytest.raises(UserError, match="another version"):
        parquet.read_shard(path, sample_rows.SCHEMA)


def test_rows_that_do_not_fit_the_schema_are_a_bug_of_the_caller(tmp_path):
    path = tmp_path / "shard-00000.parquet"
    with pytest.raises(ValueError, match="column tokens"):
        parquet.write_shard(path, [{k: v for k, v in ROW.items() if k != "tokens"}], sample_rows.SCHEMA)
    with pytest.raises(ValueError, match="gold holds null"):
        parquet.write_shard(path, [ROW | {"gold": None}], sample_rows.SCHEMA)
    assert not path.exists()


def test_a_write_that_fails_leaves_the_old_shard_and_no_scratch(folder, monkeypatch):
    path = folder / "shard-00000.parquet"
    before = path.read_bytes()

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(path), "replace", full)
    with pytest.raises(OSError, match="No space"):
        parquet.write_shard(path, [UNPARSABLE], sample_rows.SCHEMA)
    assert path.read_bytes() == before
    assert len(list(folder.iterdir())) == 3
