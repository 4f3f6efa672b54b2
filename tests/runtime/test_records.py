"""A folder's own list says what belongs to it: strangers are not read, and what was changed is noticed."""

import logging
import os
import shutil

import pytest
from etils import epath

from ttcjax.data import loader
from ttcjax.eval.collect import rescore
from ttcjax.eval.records import sample_rows, verifier_scores
from ttcjax.pipeline import run
from ttcjax.runtime import parquet, records
from ttcjax.runtime.errors import DamagedError, UserError
from ttcjax.testing import folders
from ttcjax.train.collect import attempts, labels
from ttcjax.train.models import prm

STRANGERS = [
    "shard-00000 (1).parquet",
    "shard-00000.sync-conflict-20260101-120000-ABCDEFG.parquet",
    "._shard-00000.parquet",
    "shard-00000 copy.parquet",
    "shard-00099.parquet",
    "shard-00000.parquet.partial",
    ".DS_Store",
    "notes.txt",
]
LABEL = {"sample": 0, "prompt": "1+1?\n", "solution": "2", "step_values": [1.0], "correct": True}
CHAIN = {"prompt": "1+1?\n", "chain": 0, "answers": ["2"], "correct": [True], "parsable": [True]}
SAMPLE = {"strategy": "sample", "n": 0, "seed": 0, "temperature": 1.0, "sample": 0}
SCORE = SAMPLE | {"verifier": "base_orm", "step_scores": [0.5]}
READERS = {
    "labels": (labels.SCHEMA, LABEL, lambda folder: len(prm.read_labels(folder))),
    "attempts": (attempts.SCHEMA, CHAIN, lambda folder: len(attempts.read(folder))),
    "rescore": (rescore.SCHEMA, SCORE, lambda folder: verifier_scores.read_folder(folder).num_rows),
}


@pytest.fixture(params=list(READERS))
def stage(request, tmp_path):
    """A complete stage of three rows in two files, and what reads it."""
    schema, row, read = READERS[request.param]
    folder = epath.Path(tmp_path / request.param)
    for number, questions in enumerate((["a", "b"], ["c"])):
        parquet.write_shard(parquet.shard_path(folder, number), [row | {"question": q} for q in questions], schema)
    folders.complete(folder)
    return folder, read


def test_strangers_are_named_and_not_read(stage, caplog):
    """The PRM used to be trained on twice the rows, and a report died of `int('00000 (1)')`."""
    folder, read = stage
    assert read(folder) == 3
    assert not caplog.records
    for name in STRANGERS:
        shutil.copy(folder / "shard-00000.parquet", folder / name)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert read(folder) == 3, name
        assert f"not its own and not read: {name}" in caplog.text
        (folder / name).unlink()


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


DAMAGE = {
    "gone": lambda path: path.unlink(),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-7]),
    "empty": lambda path: path.write_bytes(b""),
    "flipped": flip,
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "another": lambda path: shutil.copy(path.parent / "shard-00000.parquet", path),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_file_with_other_bytes_is_noticed_by_those_who_read_it_and_by_list(stage, damage):
    folder, read = stage
    path = folder / "shard-00001.parquet"
    DAMAGE[damage](path)
    with pytest.raises(UserError, match=r"shard-00001.parquet (is damaged|does not exist)") as error:
        read(folder)
    assert "\n" not in str(error.value)
    states = {name: state for name, state, _ in run.states(folder.parent)}
    assert states[folder.name].startswith("damaged: shard-00001.parquet ")


def test_other_bytes_of_the_same_size_and_time_are_noticed_at_reading(stage):
    """As a failing disk changes them; what only asks whether a stage is complete does not read it."""
    folder, read = stage
    path = folder / "shard-00001.parquet"
    flip(path)
    record = records.read(folder)
    assert record is not None
    record["files"][path.name]["changed"] = os.stat(path).st_ctime_ns
    records.write(folder, record)
    assert {n: s for n, s, _ in run.states(folder.parent)}[folder.name] == "complete"
    with pytest.raises(DamagedError, match="has other bytes than were written"):
        read(folder)


def test_a_copy_of_a_workdir_is_whole_though_its_times_differ(stage, tmp_path):
    folder, read = stage
    shutil.copytree(folder.parent, tmp_path / "copy", copy_function=shutil.copyfile)
    assert read(epath.Path(tmp_path / "copy" / folder.name)) == 3
    assert {n: s for n, s, _ in run.states(tmp_path / "copy")}[folder.name] == "complete"


def test_a_folder_without_its_record_is_not_read(stage):
    folder, read = stage
    records.path_of(folder).unlink()
    with pytest.raises(UserError, match=f"not the folder of a complete stage: run the {folder.name} stage first"):
        read(folder)


def test_a_tokenizer_with_other_bytes_is_called_damaged_and_not_foreign(tmp_path):
    from ttcjax.config import TokenizerConfig
    from ttcjax.text import tokenizer as tokenizers

    path = epath.Path(tmp_path / "data" / tokenizers.FILE)
    path.parent.mkdir()
    tokenizers.train(["1 + 2 = 3"] * 20, TokenizerConfig(vocab_size=400)).save(path)
    folders.complete(path.parent)
    loader.tokenizer(path.parent)
    flip(path)
    with pytest.raises(DamagedError, match=r"data/tokenizer.model is damaged \(it has other bytes"):
        loader.tokenizer(path.parent)


def test_no_two_cells_of_a_search_share_a_file():
    from ttcjax.eval.collect.searches import cell_name

    names = [
        *("beam:width=4", "beam:width=sqrt", "lookahead:width=4,k=1", "dvts:width=4", "best_of_n:select=best"),
        *(
            "best_of_n:select=softmax,vote_temperature=0.5",
            "best_of_n:select=softmax,vote_temperature=0.25",
            "majority",
        ),
    ]
    cells = [cell_name(name) for name in names]
    assert len(set(cells)) == len(cells)
    for cell in cells:
        assert not set(cell) & set("=:,*?[]% "), "a reader would take it for a column or a pattern"
    assert sample_rows.SCHEMA.names[4] == "strategy", "the names themselves stand in the rows"
