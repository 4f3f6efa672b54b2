import gzip
import json
import pathlib
import re
from dataclasses import replace

import pytest

from ttcjax.config import (
    DataConfig,
    ExperimentConfig,
    ModelConfig,
    PRMConfig,
    SamplerConfig,
    TokenizerConfig,
    TrainConfig,
)
from ttcjax.data import gsm8k, loader, prepare
from ttcjax.runtime.errors import UserError
from ttcjax.testing import folders
from ttcjax.text import tokenizer as tokenizer_lib
from ttcjax.train.batches import PackedRows, policy_examples

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


def experiment(config, vocab_size=420, max_seq_len=256):
    return ExperimentConfig(
        data=config,
        tokenizer=TokenizerConfig(vocab_size=vocab_size),
        model=ModelConfig(max_seq_len=max_seq_len),
        sampler=SamplerConfig(max_tokens=24),
    )


@pytest.fixture
def config(tmp_path):
    return write(tmp_path, [row(i) for i in range(1000, 1060)], [row(i) for i in range(8)])


def test_splits_partition_the_training_file_and_keep_the_text(config):
    splits = gsm8k.DATA_SET.read(config)[0]
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
    assert gsm8k.DATA_SET.read(config)[0] == gsm8k.DATA_SET.read(config)[0]
    assert gsm8k.DATA_SET.read(replace(config, seed=1))[0].valid != gsm8k.DATA_SET.read(config)[0].valid
    fewer = gsm8k.DATA_SET.read(replace(config, num_train=20))[0]
    assert fewer.train == gsm8k.DATA_SET.read(config)[0].train[:20]
    assert fewer.valid == gsm8k.DATA_SET.read(config)[0].valid


def test_questions_that_recur_are_left_out_of_training(tmp_path):
    config = write(tmp_path, [*(row(i) for i in range(40)), *(row(i) for i in range(40))], [row(0), row(1)])
    splits = gsm8k.DATA_SET.read(config)[0]
    held_out = {e.question for e in (*splits.valid, *splits.test)}
    assert not held_out & {e.question for e in splits.train}
    assert not {e.question for e in splits.test} & {e.question for e in splits.valid}


def test_task_reads_and_grades_its_own_solutions(config, tmp_path):
    loader.prepare(config, tmp_path / "prepared")
    task, splits = loader.load(config, tmp_path / "prepared")
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
        ('{"question": "a\udcff?", "answer": "#### 1"}', "line 61: not UTF-8 text"),
        (r'{"question": "a \ud83d?", "answer": "#### 1"}', "line 61: it has a half of a character"),
        (r'{"question": "a?", "answer": "so \udc00\n#### 1"}', "line 61: it has a half of a character"),
        ("[" * 100_000, "line 61: not valid JSON"),
    ],
)
def test_a_bad_line_is_named_or_left_out(config, tmp_path, caplog, line, message):
    with (tmp_path / "train.jsonl").open("ab") as file:
        file.write(line.encode(errors="surrogateescape") + b"\n")
    with pytest.raises(UserError, match=f"1 example cannot be used: .*train.jsonl, {message}.*leave_out") as caught:
        folders.run_stage(prepare.STAGE, experiment(config), tmp_path, tmp_path / "out")
    assert "\n" not in str(caught.value)
    manifest = folders.run_stage(
        prepare.STAGE, experiment(replace(config, faults="leave_out")), tmp_path, tmp_path / "out"
    )
    assert manifest["left_out"] == 1
    assert message.split(": ")[1] in (tmp_path / "out" / "left_out.csv").read_text().replace('""', '"')
    assert sum(manifest["counts"].values()) == 65, "the others are all there"
    assert "1 example cannot be used, left out: left_out.csv says which and why" in caplog.text
    assert "50 train examples, fewer than data.num_train=1000" in caplog.text


BAD = {
    "an empty question": ({"question": " ", "answer": "#### 1"}, "the question is empty"),
    "an empty solution": ({"question": "a?", "answer": ""}, 'does not end in "#### number"'),
    "no number": ({"question": "a?", "answer": "so many"}, 'does not end in "#### number"'),
    "half a number": ({"question": "a?", "answer": "#### 12:30"}, 'does not end in "#### number"'),
    "another answer": (row(1003) | {"answer": "#### 7"}, "the same question has different answers: 2006, 7"),
    "another answer, other blanks": (
        {"question": row(1004)["question"].replace(" ", "  "), "answer": "#### 7"},
        "the same question has different answers: 2008, 7",
    ),
    "another answer in the test": (row(5) | {"answer": "#### 7"}, "the same question has different answers: 10, 7"),
    "too long": ({"question": "Why? " * 400, "answer": "#### 1"}, "leaves no room for sampler.max_tokens=24"),
}


@pytest.mark.parametrize("kind", BAD)
def test_an_example_that_would_stop_a_later_stage_is_found_by_the_first(config, tmp_path, kind):
    """Four models used to be trained before the bank died of one question of 9,000 tokens."""
    bad, what = BAD[kind]
    with (tmp_path / "train.jsonl").open("a") as file:
        file.write(json.dumps(bad) + "\n")
    with pytest.raises(UserError, match=re.escape(what)):
        folders.run_stage(prepare.STAGE, experiment(config), tmp_path, tmp_path / "data")
    lenient = experiment(replace(config, faults="leave_out"))
    manifest = folders.run_stage(prepare.STAGE, lenient, tmp_path, tmp_path / "data")
    assert manifest["left_out"] == (2 if kind.startswith("another answer") else 1), "which of two is right nobody knows"
    _, splits = loader.askable(lenient.questions, tmp_path / "data")
    asked = [e.question for split in (splits.train, splits.valid, splits.test) for e in split]
    assert bad["question"].strip() not in asked
    assert max(map(len, asked)) < 100


def test_a_question_that_a_later_setting_leaves_no_room_for_is_refused_then(config, tmp_path):
    fine = experiment(config)
    folders.run_stage(prepare.STAGE, fine, tmp_path, tmp_path / "data")
    loader.askable(fine.questions, tmp_path / "data")
    longer = replace(fine, sampler=SamplerConfig(max_tokens=fine.model.max_seq_len - 5))
    with pytest.raises(UserError, match=r"65 examples cannot be used: train .* Raise --model\.max_seq_len"):
        loader.askable(longer.questions, tmp_path / "data")


def test_what_was_read_counts_whatever_becomes_of_the_files(config, tmp_path):
    loader.prepare(config, tmp_path / "prepared")
    before = loader.load(config, tmp_path / "prepared")[1]
    for name in ("train", "test"):
        (tmp_path / f"{name}.jsonl").unlink()
    assert loader.load(config, tmp_path / "prepared")[1] == before


def test_missing_folder_file_or_questions_name_the_fix(config, tmp_path):
    with pytest.raises(UserError, match=r"--data\.dir"):
        gsm8k.DATA_SET.read(DataConfig(name="gsm8k", dir=str(tmp_path / "nowhere")))
    with pytest.raises(UserError, match=r"data\.num_valid=60 "):
        gsm8k.DATA_SET.read(DataConfig(name="gsm8k", dir=str(tmp_path), num_valid=60))
    (tmp_path / "test.jsonl").unlink()
    with pytest.raises(UserError, match=r"test\.jsonl"):
        gsm8k.DATA_SET.read(config)[0]


def test_data_stage_on_a_folder_of_files(config, tmp_path):
    manifest = folders.run_stage(prepare.STAGE, experiment(config), tmp_path, tmp_path / "out")
    assert manifest["counts"] == {"train": 50, "valid": 10, "test": 5}
    assert folders.run_stage(prepare.STAGE, experiment(config), tmp_path, tmp_path / "out") == manifest


@needs_files
def test_the_real_files(tmp_path):
    config = DataConfig(name="gsm8k", dir=str(REAL), num_train=10_000, num_valid=500, num_test=2000)
    manifest = folders.run_stage(
        prepare.STAGE, experiment(config, vocab_size=4000, max_seq_len=1024), tmp_path, tmp_path / "out"
    )
    assert manifest["counts"] == {"train": 6973, "valid": 500, "test": 1319}
    assert manifest["tokenizer"]["vocab_size"] == 4000
    assert 50 < manifest["tokens"]["test"]["solution"]["mean"] < 200


WHOLE_FILES = {
    "UTF-16": lambda text: text.encode("utf-16"),
    "compressed": lambda text: gzip.compress(text.encode()),
    "old line ends": lambda text: text.replace("\n", "\r").encode(),
    "nothing": lambda text: b"",
}


@pytest.mark.parametrize("name", ["train.jsonl", "test.jsonl"])
@pytest.mark.parametrize("kind", WHOLE_FILES)
@pytest.mark.parametrize("faults", ["refuse", "leave_out"])
def test_a_file_of_another_form_is_named_and_not_the_number_of_questions(config, tmp_path, name, kind, faults):
    path = tmp_path / name
    path.write_bytes(WHOLE_FILES[kind](path.read_text()))
    with pytest.raises(UserError) as error:
        folders.run_stage(prepare.STAGE, experiment(replace(config, faults=faults)), tmp_path, tmp_path / "out")
    assert name in str(error.value)
    assert "lower it" not in str(error.value)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"question": "a?", "question": "b?", "answer": "#### 1"}', "'question' stands twice"),
        ('{"question": "a?", "answer": "#### 7\\n#### 8"}', 'more than one line with "####"'),
        ('{"question": "\\u200b\\ufeff ", "answer": "#### 1"}', "the question is empty"),
    ],
)
def test_what_can_be_read_in_two_ways_or_not_at_all_is_a_fault(config, tmp_path, line, words):
    with (tmp_path / "train.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(UserError, match=words):
        folders.run_stage(prepare.STAGE, experiment(config), tmp_path, tmp_path / "out")


def test_questions_that_look_the_same_are_the_same(config, tmp_path):
    with (tmp_path / "train.jsonl").open("a") as file:
        for question, answer in (("Caf\u00e9?", 7), ("Cafe\u0301?", 8)):
            file.write(json.dumps({"question": question, "answer": f"#### {answer}"}) + "\n")
    with pytest.raises(UserError, match="the same question has different answers: 7, 8"):
        folders.run_stage(prepare.STAGE, experiment(config), tmp_path, tmp_path / "out")


def test_data_of_which_a_later_stage_could_use_nothing_is_refused(tmp_path):
    long = {"question": "What is 7 and 7? " * 60, "answer": "#### 14"}
    config = write(tmp_path, [row(i) for i in range(1000, 1060)], [long, long])
    leave = experiment(replace(config, faults="leave_out"))
    with pytest.raises(UserError, match=r"no test question can be used: each is too long"):
        folders.run_stage(prepare.STAGE, leave, tmp_path, tmp_path / "out")
    config = replace(write(tmp_path, [row(i) for i in range(20)], [row(i) for i in range(20)]), num_test=20)
    with pytest.raises(UserError, match=r"no (train|valid) question is left: each is also one of a later"):
        folders.run_stage(prepare.STAGE, experiment(config), tmp_path, tmp_path / "out")
    config = write(tmp_path, [row(i) for i in range(1000, 1060)], [row(i) for i in range(8)])
    few = experiment(config)
    for path, changed in {
        "policy": replace(few, policy=TrainConfig(seq_len=8)),
        "prm.train": replace(few, prm=PRMConfig(train=TrainConfig(seq_len=8))),
    }.items():
        with pytest.raises(
            UserError, match=rf"{path}.seq_len=8 is less than every train question takes .* raise it to"
        ):
            folders.run_stage(prepare.STAGE, changed, tmp_path, tmp_path / "out")


def test_a_length_is_refused_where_training_could_use_no_example_and_nowhere_else(tmp_path):
    """The limit named is that of the rows that training packs."""
    config = experiment(write(tmp_path, [row(i) for i in range(1000, 1060)], [row(i) for i in range(8)]))
    with pytest.raises(UserError, match="raise it to") as refused:
        folders.run_stage(prepare.STAGE, replace(config, policy=TrainConfig(seq_len=8)), tmp_path, tmp_path / "out")
    least = int(str(refused.value).split("raise it to ")[1].split()[0])
    folders.run_stage(prepare.STAGE, replace(config, policy=TrainConfig(seq_len=least)), tmp_path, tmp_path / "out")
    task, splits = loader.load(config.data, tmp_path / "out")
    tokenizer = tokenizer_lib.load(tmp_path / "out" / "tokenizer.model")
    pairs = [(task.prompt(example.question), example.solution) for example in splits.train]
    examples = policy_examples(pairs, tokenizer)
    assert len(PackedRows(examples, least))
    with pytest.raises(UserError, match="are longer than seq_len"):
        PackedRows(examples, least - 1)
