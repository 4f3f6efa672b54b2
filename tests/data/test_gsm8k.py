import json
import pathlib
from dataclasses import replace

import pytest

from ttcjax.config import DataConfig, ExperimentConfig, TokenizerConfig
from ttcjax.data import gsm8k, loader, prepare
from ttcjax.errors import UserError

REAL = pathlib.Path(__file__).parents[3] / "shared" / "data" / "gsm8k"
needs_files = pytest.mark.skipif(not REAL.is_dir(), reason="needs ../shared/data/gsm8k beside the repository")


def row(i):
    return {
        "question": f"Ann has {i} pears and gets {i}. How many?",
        "answer": f"She has {i}+{i} = <<{i}+{i}={2 * i}>>{2 * i}.\n#### {2 * i:,}",
    }


def write(folder, train, test):
    for name, rows in (("train", train), ("test", test)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return DataConfig(name="gsm8k", dir=str(folder), num_train=1000, num_valid=10, num_test=5)


@pytest.fixture
def config(tmp_path):
    return write(tmp_path, [row(i) for i in range(1000, 1060)], [row(i) for i in range(8)])


def test_splits_partition_the_training_file_and_keep_the_text(config):
    splits = gsm8k.load(config)
    assert (len(splits.train), len(splits.valid), len(splits.test)) == (50, 10, 5)
    questions = [e.question for split in (splits.train, splits.valid, splits.test) for e in split]
    assert len(set(questions)) == 65, "splits are disjoint by question"
    ids = [e.id for split in (splits.train, splits.valid, splits.test) for e in split]
    assert len(set(ids)) == 65
    example = splits.test[3]
    assert example.solution == row(3)["answer"]
    assert "<<3+3=6>>" in example.solution
    assert (example.answer, example.level, example.subject) == ("6", 0, "gsm8k")
    assert splits.train[0].answer == str(int(splits.train[0].answer)), "thousands commas are gone"


def test_the_split_depends_on_the_seed_alone(config, tmp_path):
    assert gsm8k.load(config) == gsm8k.load(config)
    assert gsm8k.load(replace(config, seed=1)).valid != gsm8k.load(config).valid
    fewer = gsm8k.load(replace(config, num_train=20))
    assert fewer.train == gsm8k.load(config).train[:20]
    assert fewer.valid == gsm8k.load(config).valid


def test_questions_that_recur_are_left_out_of_training(tmp_path):
    config = write(tmp_path, [*(row(i) for i in range(40)), *(row(i) for i in range(40))], [row(0), row(1)])
    splits = gsm8k.load(config)
    held_out = {e.question for e in (*splits.valid, *splits.test)}
    assert not held_out & {e.question for e in splits.train}
    assert not {e.question for e in splits.test} & {e.question for e in splits.valid}


def test_task_reads_and_grades_its_own_solutions(config):
    task, splits = loader.load(config, "unused")
    for example in splits.train:
        assert task.prompt(example.question) == example.question + "\n"
        assert task.grade(task.extract(example.solution), example.answer)
        assert not task.grade(task.extract(example.solution), example.answer + "1")
    assert not task.grade(task.extract("no answer"), "3")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"question": "a", "answer": "#### 1"', "line 61: not valid JSON"),
        ('{"question": "a"}', 'line 61: no text field "answer"'),
        ('{"question": 3, "answer": "#### 1"}', 'line 61: no text field "question"'),
        ("[1]", 'line 61: no text field "question"'),
        ('{"question": "a", "answer": "1"}', "line 61: the answer does not end"),
    ],
)
def test_a_bad_line_is_named(config, tmp_path, line, message):
    with (tmp_path / "train.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(UserError, match=message) as caught:
        gsm8k.load(config)
    assert "train.jsonl" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_folder_file_or_questions_name_the_fix(config, tmp_path):
    with pytest.raises(UserError, match=r"--data\.dir"):
        gsm8k.load(DataConfig(name="gsm8k", dir=str(tmp_path / "nowhere")))
    with pytest.raises(UserError, match=r"data\.num_valid=60 "):
        gsm8k.load(DataConfig(name="gsm8k", dir=str(tmp_path), num_valid=60))
    (tmp_path / "test.jsonl").unlink()
    with pytest.raises(UserError, match=r"test\.jsonl"):
        gsm8k.load(config)
    (tmp_path / "test.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not UTF-8"):
        gsm8k.load(config)


def test_data_stage_on_a_folder_of_files(config, tmp_path):
    experiment = ExperimentConfig(data=config, tokenizer=TokenizerConfig(vocab_size=420))
    manifest = prepare.run(experiment, tmp_path, tmp_path / "out")
    assert manifest["counts"] == {"train": 50, "valid": 10, "test": 5}
    assert prepare.run(experiment, tmp_path, tmp_path / "out") == manifest


@needs_files
def test_the_real_files(tmp_path):
    config = DataConfig(name="gsm8k", dir=str(REAL), num_train=10_000, num_valid=500, num_test=2000)
    experiment = ExperimentConfig(data=config, tokenizer=TokenizerConfig(vocab_size=4000))
    manifest = prepare.run(experiment, tmp_path, tmp_path / "out")
    assert manifest["counts"] == {"train": 6973, "valid": 500, "test": 1319}
    assert manifest["tokenizer"]["vocab_size"] == 4000
    assert 50 < manifest["tokens"]["test"]["solution"]["mean"] < 200
