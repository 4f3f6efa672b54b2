"""What a run reads from outside its workdir: a change is named, and the user chooses what is to count."""

import dataclasses
import json
import shutil

import pytest
from etils import epath

from ttcjax.config import DataConfig, ExperimentConfig, SamplerConfig, SweepConfig, TokenizerConfig
from ttcjax.data import gsm8k, loader, sources
from ttcjax.pipeline import inputs, run, stages
from ttcjax.pipeline.stages import get_stage
from ttcjax.runtime.errors import UserError
from ttcjax.testing import folders


def line(i, answer=None):
    return json.dumps({"question": f"What is {i}+{i}?", "answer": f"#### {2 * i if answer is None else answer}"})


def write(folder, **lines):
    folder.mkdir(exist_ok=True)
    for name, found in lines.items():
        (folder / f"{name}.jsonl").write_text("\n".join(found) + "\n")


TRAIN, TEST = [line(i) for i in range(40)], [line(i) for i in range(100, 110)]
ANSWER_CHANGED = [*TRAIN[:3], line(3, 7), *TRAIN[4:]]


@pytest.fixture
def config(tmp_path):
    write(tmp_path / "files", train=TRAIN, test=TEST)
    return ExperimentConfig(
        workdir=str(tmp_path / "work"),
        data=DataConfig(name="gsm8k", dir=str(tmp_path / "files"), num_valid=5),
        tokenizer=TokenizerConfig(vocab_size=400),
        sampler=SamplerConfig(max_tokens=64),
    )


@pytest.fixture
def read(config, monkeypatch):
    """The config, with a data stage that is complete."""
    monkeypatch.setattr(stages, "STAGES", (get_stage("data"),))
    run.run(config)
    return config


def questions(config):
    _, splits = loader.load(config.data, epath.Path(config.workdir) / "data")
    return {e.question: e.answer for split in (splits.train, splits.valid, splits.test) for e in split}


CHANGES = {
    "an answer": ({"train": ANSWER_CHANGED}, "train.jsonl: line 4 changed"),
    "a new line": ({"test": [*TEST, line(200)]}, "test.jsonl: line 11 added"),
    "a line gone": ({"train": [*TRAIN[:5], *TRAIN[6:]]}, "train.jsonl: line 6 removed"),
    "a line put in": ({"train": [*TRAIN[:5], line(300), *TRAIN[5:]]}, "train.jsonl: line 6 added"),
    "many lines": (
        {"test": [line(i, 0) for i in range(100, 110)]},
        "test.jsonl: lines 1, 2, 3, 4, 5 and 5 more changed",
    ),
    "both files": (
        {"train": TRAIN[:-1], "test": [line(500), *TEST[1:]]},
        "train.jsonl: line 40 removed; test.jsonl: line 1 changed",
    ),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_changed_file_is_named_with_its_lines_and_the_user_chooses(read, tmp_path, kind, caplog):
    """It used to go unnoticed, and the report counted other questions than the manifest."""
    changed, told = CHANGES[kind]
    before = questions(read)
    write(tmp_path / "files", **changed)
    with pytest.raises(UserError) as error:
        run.run(read)
    assert told in str(error.value)
    assert "\n" not in str(error.value)
    assert "--changed_inputs keep" in str(error.value)
    assert questions(read) == before, "what was read must stay whatever becomes of the file"

    run.run(dataclasses.replace(read, changed_inputs="keep"))
    assert questions(read) == before
    assert told in caplog.text
    run.run(dataclasses.replace(read, changed_inputs="read"))
    after = questions(read)
    assert after != before
    write(tmp_path / "files", train=TRAIN, test=TEST)
    assert "data has changed" not in caplog.text
    run.run(dataclasses.replace(read, changed_inputs="read"))
    assert questions(read) == before, "the first data set was kept, and is moved back"


def test_files_that_are_gone_or_lie_elsewhere_change_nothing(read, tmp_path, caplog):
    record = json.loads((tmp_path / "work" / "stages" / "data.json").read_text())
    shutil.move(tmp_path / "files", tmp_path / "elsewhere")
    run.run(read)
    assert "is not there any more: what was read from it goes on to count" in caplog.text
    moved = dataclasses.replace(read, data=dataclasses.replace(read.data, dir=str(tmp_path / "elsewhere")))
    found = run.run(moved)["data"]
    assert found["started"] == record["started"], "files are known by their content, not by where they lie"


def test_a_line_at_the_end_has_its_own_number(read, tmp_path):
    path = tmp_path / "files" / "test.jsonl"
    path.write_text(path.read_text() + "\n")
    with pytest.raises(UserError, match=r"test.jsonl: line 11 added\)"):
        run.run(read)


def test_what_cannot_be_read_anew_is_not_taken_from_before(read, tmp_path):
    shutil.rmtree(tmp_path / "files")
    with pytest.raises(UserError, match=r"no folder .*files"):
        run.run(dataclasses.replace(read, changed_inputs="read"))


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"PAR1")])
def test_a_change_can_be_answered_where_the_list_of_lines_is_lost(read, tmp_path, damage):
    damage(tmp_path / "work" / "data" / sources.FILE)
    write(tmp_path / "files", train=ANSWER_CHANGED)
    with pytest.raises(UserError, match=r"has changed .*which lines cannot be told.*--changed_inputs keep"):
        run.run(read)
    run.run(dataclasses.replace(read, changed_inputs="read"))
    assert questions(read)["What is 3+3?"] == "7"


def test_whatever_stands_where_the_files_were_does_not_matter(read, tmp_path, caplog):
    (tmp_path / "files" / "train.jsonl").unlink()
    (tmp_path / "files" / "train.jsonl").mkdir()
    run.run(read)
    shutil.rmtree(tmp_path / "files")
    (tmp_path / "files").write_text("a file")
    run.run(read)
    assert caplog.text.count("is not there any more") == 2


def test_other_files_are_other_data_without_a_question(read, tmp_path):
    """A new --data.dir is the user's own choice."""
    write(tmp_path / "other", train=[line(i, 1) for i in range(40)], test=TEST)
    other = dataclasses.replace(read, data=dataclasses.replace(read.data, dir=str(tmp_path / "other")))
    run.run(other)
    assert set(questions(other).values()) >= {"1"}
    run.run(read)
    assert questions(read)["What is 3+3?"] == "6"


def test_a_file_that_is_gone_is_a_change_and_a_folder_that_is_gone_is_none(read, tmp_path):
    (tmp_path / "files" / "test.jsonl").unlink()
    write(tmp_path / "files", train=ANSWER_CHANGED)
    with pytest.raises(UserError, match=r"has changed .*train.jsonl: line 4 changed; test.jsonl is gone\)"):
        run.run(read)
    with pytest.raises(UserError, match=r"no file .*test.jsonl"):
        run.run(dataclasses.replace(read, changed_inputs="read"))


@pytest.mark.parametrize("typed", ["files", "./files/", "sub/../files", "../{}/files"])
def test_a_relative_folder_is_the_same_from_wherever_it_is_named(config, tmp_path, monkeypatch, typed):
    """It used to be compared with what the words mean in today's folder, and a change went unnoticed."""
    monkeypatch.setattr(stages, "STAGES", (get_stage("data"),))
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    run.run(at(config, typed.format(tmp_path.name)))
    write(tmp_path / "files", train=ANSWER_CHANGED)
    monkeypatch.chdir(tmp_path / "sub")
    with pytest.raises(UserError, match=r"train\.jsonl: line 4 changed"):
        run.run(at(config, "../files"))


def at(config, folder):
    return dataclasses.replace(config, data=dataclasses.replace(config.data, dir=folder))


def test_what_was_read_and_is_nowhere_any_more_is_not_made_again_of_other_lines(read, tmp_path):
    """`keep` goes on with what was read: it must not read the files of today under the hash of then."""
    write(tmp_path / "files", train=ANSWER_CHANGED)
    before = json.loads((tmp_path / "work" / "stages" / "data.json").read_text())
    other = dataclasses.replace(read, changed_inputs="keep", tokenizer=TokenizerConfig(vocab_size=390))
    with pytest.raises(UserError, match=r"lines that .* does not hold: .*--changed_inputs read") as error:
        run.run(other)
    assert "\n" not in str(error.value)
    (tmp_path / "files" / "test.jsonl").unlink()
    with pytest.raises(UserError, match=r"lines that .* does not hold"):
        run.run(other)
    run.run(dataclasses.replace(read, changed_inputs="keep"))
    assert json.loads((tmp_path / "work" / "stages" / "data.json").read_text()) == before, "nothing was moved"


def test_files_that_change_while_a_run_begins_are_not_recorded_under_their_old_hash(config, tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "STAGES", (get_stage("data"),))
    prepared, workdir = run.prepared(config)
    write(tmp_path / "files", train=ANSWER_CHANGED)
    with pytest.raises(UserError, match=r"lines that .* does not hold"):
        run.run_stage(get_stage("data"), prepared, workdir)
    found = run.run(config)["data"]
    assert questions(config)["What is 3+3?"] == "7"
    assert run.run(config)["data"]["started"] == found["started"], "the record is of the lines that were read"


def test_files_that_were_never_there_are_asked_for(config, tmp_path):
    (tmp_path / "files" / "test.jsonl").unlink()
    with pytest.raises(UserError, match=r"no file .*test.jsonl; --data.dir needs GSM8K's train.jsonl and test.jsonl"):
        run.run(config)
    assert not (tmp_path / "work").exists()


def test_line_ends_and_a_byte_order_mark_are_no_change_of_questions(config, tmp_path):
    before = sources.content(sources.digests(gsm8k.DATA_SET.read_files(config.data)))
    path = tmp_path / "files" / "train.jsonl"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert sources.content(sources.digests(gsm8k.DATA_SET.read_files(config.data))) == before
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(gsm8k.DATA_SET.read(config.data)[0].train) == 35


def test_a_bank_that_samples_were_taken_from_is_compared_too(tmp_path):
    """Its rows are in this run's bank by now; another bank at its place is not what they came from."""
    source = epath.Path(tmp_path / "a" / "bank")
    source.mkdir(parents=True)
    (source / "shard-00000.parquet").write_bytes(b"1")
    folders.complete(source)
    config = ExperimentConfig(workdir=str(tmp_path / "b"), sweep=SweepConfig(samples_from=str(source)))
    first = inputs.resolved(config, epath.Path(tmp_path / "b"))
    assert first.sweep.samples_from == str(source)
    assert first.sweep.samples_content is not None
    folders.complete(tmp_path / "b" / "bank", config=json.loads(json.dumps(dataclasses.asdict(first))))
    assert inputs.resolved(config, epath.Path(tmp_path / "b")) == first
    (source / "shard-00000.parquet").write_bytes(b"2")
    folders.complete(source)
    with pytest.raises(UserError, match="is not the one that the bank stage read: put it back"):
        inputs.resolved(config, epath.Path(tmp_path / "b"))
    keep, anew = (dataclasses.replace(config, changed_inputs=choice) for choice in ("keep", "read"))
    with pytest.raises(UserError, match=r"samples that .* does not hold: put the bank back"):
        inputs.resolved(keep, epath.Path(tmp_path / "b"))  # The bank that was made of them is not of these settings.
    own = stages.fingerprint(get_stage("bank"), first)
    folders.complete(tmp_path / "b" / "bank", config=json.loads(json.dumps(dataclasses.asdict(first))), fingerprint=own)
    assert inputs.resolved(keep, epath.Path(tmp_path / "b")).sweep == first.sweep
    assert inputs.resolved(anew, epath.Path(tmp_path / "b")).sweep != first.sweep
    shutil.rmtree(source)
    assert inputs.resolved(config, epath.Path(tmp_path / "b")).sweep == first.sweep


def test_the_bank_of_another_run_is_named_like_any_path(tmp_path, monkeypatch):
    """Its `~` was understood before the run and not by the bank stage, hours later."""
    source = epath.Path(tmp_path / "a" / "bank")
    source.mkdir(parents=True)
    folders.complete(source)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path / "a")
    for typed in ("~/a/bank", "bank", "./bank/", "../a/bank", str(source)):
        config = ExperimentConfig(workdir=str(tmp_path / "b"), sweep=SweepConfig(samples_from=typed))
        assert run.prepared(config)[0].sweep.samples_from == str(source), typed


def test_a_content_that_is_asked_for_must_be_there(config, tmp_path):
    wanted = dataclasses.replace(config, data=dataclasses.replace(config.data, content="0123456789abcdef"))
    with pytest.raises(UserError, match=r"data.content is to be 0123456789abcdef, and what is there has \w{16}"):
        run.run(wanted)
