import dataclasses
import errno
import json
import logging
import os
import pathlib
import pickle
import re
import subprocess
import sys
import tempfile

import pytest
from etils import epath

from ttcjax.config import (
    DataConfig,
    ExperimentConfig,
    ModelConfig,
    PRMConfig,
    SamplerConfig,
    TokenizerConfig,
    TrainConfig,
)
from ttcjax.data import loader, prepare, procmath
from ttcjax.runtime.errors import DamagedError, MachineError, UserError
from ttcjax.testing import folders
from ttcjax.text import tokenizer as tokenizer_lib

DATA = DataConfig(num_train=700, num_valid=40, num_test=35, seed=3)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = epath.Path(tmp_path_factory.mktemp("built"))
    loader.prepare(DATA, folder)
    return folder


@pytest.fixture
def copied(built, tmp_path):
    folder = epath.Path(tmp_path) / "copy"
    subprocess.run(["cp", "-r", str(built), str(folder)], check=True)
    return folder


def record_file(folder, split="train"):
    (path,) = pathlib.Path(folder).rglob(f"*-{split}.array_record*")
    return path


def test_records_read_back_are_those_generated_in_order(built):
    task, splits = loader.load(DATA, built)
    assert task.name == "procmath"
    for split in ("train", "valid", "test"):
        records = getattr(splits, split)
        expected = list(procmath.generate(split, len(records), DATA.seed))
        assert list(records) == expected, "iteration changed an example or its place"
        assert records[5] == expected[5]
        assert records[-1] == expected[-1]
        assert records[3:9:2] == expected[3:9:2]
        with pytest.raises(IndexError):
            records[len(records)]
    assert (len(splits.train), len(splits.valid), len(splits.test)) == (700, 40, 35)


def test_nothing_stays_in_the_temporary_folder(tmp_path, monkeypatch):
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    loader.prepare(DataConfig(num_train=20, num_valid=5, num_test=5), epath.Path(tmp_path) / "built")
    loader.load(DataConfig(num_train=20, num_valid=5, num_test=5), epath.Path(tmp_path) / "built")
    assert not list(scratch.iterdir()), "a data stage leaves litter outside its workdir"


def test_splits_survive_pickling_for_reader_processes(built):
    _, splits = loader.load(DATA, built)
    assert pickle.loads(pickle.dumps(splits.test))[2] == splits.test[2]


def test_preparing_again_keeps_the_files_and_another_config_gets_its_own(copied):
    before = record_file(copied).stat().st_mtime_ns
    loader.prepare(DATA, copied)
    assert record_file(copied).stat().st_mtime_ns == before
    other = DataConfig(num_train=10, num_valid=5, num_test=5, seed=4)
    with pytest.raises(UserError, match="run the data stage"):
        loader.load(other, copied)
    loader.prepare(other, copied)
    assert len(loader.load(other, copied)[1].train) == 10
    assert len(loader.load(DATA, copied)[1].train) == 700


def test_leftovers_of_a_killed_run_are_swept_away(built, tmp_path):
    final = record_file(built).parent
    leftover = tmp_path / final.relative_to(built).parent / f"{final.name}.incomplete.ABC"
    leftover.mkdir(parents=True)
    (leftover / "half.array_record").write_bytes(b"half")
    loader.prepare(DATA, tmp_path)
    assert not leftover.exists()
    assert len(loader.load(DATA, tmp_path)[1].test) == 35


def test_records_may_be_moved_after_they_are_built(built, copied):
    assert loader.load(DATA, copied)[1].train[17] == loader.load(DATA, built)[1].train[17]


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(
    "damage",
    [lambda b: b"", lambda b: b[: len(b) // 2], lambda b: b[:-10], lambda b: b"junk" * 20_000, None],
    ids=["empty", "half", "tail", "junk", "missing"],
)
def test_damaged_record_file_is_named_in_one_line_on_loading(copied, split, damage):
    path = record_file(copied, split)
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match="run the data stage again") as caught:
        loader.load(DATA, copied)
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_damaged_record_in_the_middle_is_named_when_read(copied):
    path = record_file(copied)
    data = bytearray(path.read_bytes())
    data[40_000:40_600] = b"\xff" * 600  # records are shorter than this
    path.write_bytes(data)
    with pytest.raises(UserError, match="run the data stage again") as caught:
        list(loader.load(DATA, copied)[1].train)
    assert path.name in str(caught.value)


@pytest.mark.parametrize("text", ["{", "", "{}"])
def test_damaged_description_is_one_clear_line(copied, text):
    (record_file(copied).parent / "dataset_info.json").write_text(text)
    with pytest.raises(UserError, match="run the data stage again") as caught:
        loader.load(DATA, copied)
    assert "\n" not in str(caught.value)


def test_records_need_neither_tensorflow_nor_a_network(tmp_path):
    code = """
import socket, sys
def refuse(*args, **kwargs):
    raise SystemExit(f"network access to {args[1:]}")
socket.socket.connect = socket.getaddrinfo = refuse
from ttcjax.config import DataConfig
from ttcjax.data import loader
assert "tensorflow_datasets" not in sys.modules, "importing the loader must stay cheap"
config = DataConfig(num_train=7, num_valid=7, num_test=7)
loader.prepare(config, sys.argv[1])
assert len(list(loader.load(config, sys.argv[1])[1].train)) == 7
assert "tensorflow" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout + done.stderr == "", "building records must not print"


EXPERIMENT = ExperimentConfig(data=DATA, tokenizer=TokenizerConfig(vocab_size=512), model=ModelConfig(max_seq_len=256))


def test_data_stage_writes_a_manifest_that_agrees_with_the_data(tmp_path):
    out = tmp_path / "data.partial"
    manifest = folders.run_stage(prepare.STAGE, EXPERIMENT, tmp_path, out)
    assert {**json.loads((out / "manifest.json").read_text()), "files": manifest["files"]} == manifest
    assert {path.name for path in out.iterdir()} == set(manifest["files"])
    assert manifest["counts"] == {"train": 700, "valid": 40, "test": 35}
    assert len(set(manifest["hashes"].values())) == 3
    tokenizer = tokenizer_lib.load(out / "tokenizer.model")
    assert manifest["tokenizer"] == {"vocab_size": tokenizer.vocab_size, "fingerprint": tokenizer.fingerprint}
    task, splits = loader.load(DATA, out)
    longest = max(len(tokenizer.encode(example.solution)) + 1 for example in splits.test)
    assert manifest["tokens"]["test"]["solution"]["max"] == longest
    prompts = [len(tokenizer.encode(task.prompt(example.question))) + 1 for example in splits.valid]
    assert manifest["tokens"]["valid"]["prompt"]["mean"] == pytest.approx(sum(prompts) / len(prompts), abs=0.01)


def test_data_stage_run_twice_or_elsewhere_gives_the_same_bytes(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    manifest = folders.run_stage(prepare.STAGE, EXPERIMENT, tmp_path, first)
    files = {path.name: path.read_bytes() for path in first.iterdir() if path.is_file()}
    assert folders.run_stage(prepare.STAGE, EXPERIMENT, tmp_path, first) == manifest
    assert folders.run_stage(prepare.STAGE, EXPERIMENT, tmp_path, second) == manifest
    for name, content in files.items():
        assert (first / name).read_bytes() == (second / name).read_bytes() == content


def test_examples_too_long_for_the_model_are_counted_and_reported(tmp_path, caplog):
    config = ExperimentConfig(
        data=DATA,
        tokenizer=EXPERIMENT.tokenizer,
        model=ModelConfig(max_seq_len=72),
        policy=TrainConfig(seq_len=72),
        prm=PRMConfig(train=TrainConfig(seq_len=72)),
        sampler=SamplerConfig(max_tokens=10),
    )
    with pytest.raises(UserError, match=r"examples cannot be used: train .*leaves no room for sampler\.max_tokens=10"):
        folders.run_stage(prepare.STAGE, config, tmp_path, tmp_path / "data")
    config = dataclasses.replace(config, data=dataclasses.replace(DATA, faults="leave_out"))
    with caplog.at_level(logging.WARNING):
        manifest = folders.run_stage(prepare.STAGE, config, tmp_path, tmp_path / "data")
    [told] = re.findall(r"(\d+) of (\d+) train examples are longer than model.max_seq_len=72 tokens", caplog.text)
    over, asked = map(int, told)
    assert 0 < over < asked
    assert 700 - manifest["left_out"] <= asked < 700, "those left out are not counted once more"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("open() failed: Permission denied; reading x"), "permission denied"),
        (OSError(errno.EIO, os.strerror(errno.EIO), "x"), "failed to answer"),
        (RuntimeError("Too many open files"), "too many open files"),
    ],
)
def test_records_that_the_machine_does_not_let_be_read_are_not_called_corrupt(built, monkeypatch, error, words):
    _, splits = loader.load(DATA, built)

    class Refused:
        def __getitem__(self, index):
            raise error

        __getitems__ = __getitem__

    monkeypatch.setattr(splits.train, "_source", Refused())
    for read in (lambda: splits.train[3], lambda: splits.train[3:9]):
        with pytest.raises(MachineError, match=words) as caught:
            read()
        assert "away" not in str(caught.value)


def test_a_folder_of_records_that_may_not_be_looked_into_is_not_missing(built, monkeypatch):
    def refuse(path, **_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(path))

    monkeypatch.setattr("ttcjax.runtime.files.os.stat", refuse)
    with pytest.raises(MachineError, match="permission denied"):
        loader.load(DATA, built)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG, errno.EACCES, errno.EROFS])
def test_records_that_cannot_be_written_are_a_fault_of_the_machine(tmp_path, monkeypatch, number):
    def refuse(self, **_):
        raise OSError(number, os.strerror(number), "x")

    monkeypatch.setattr("tensorflow_datasets.core.GeneratorBasedBuilder.download_and_prepare", refuse)
    with pytest.raises(MachineError):
        loader.prepare(DATA, epath.Path(tmp_path) / "new")


@pytest.mark.parametrize("damage", [lambda b: b[:100], lambda b: b"", lambda b: b[:40] + bytes([b[40] ^ 1]) + b[41:]])
def test_damaged_lengths_of_prompts_are_named(tmp_path, damage):
    config = dataclasses.replace(EXPERIMENT, data=dataclasses.replace(DATA, num_train=300))
    folder = epath.Path(tmp_path) / "data"
    found = folders.run_stage(prepare.STAGE, config, tmp_path, folder)
    folders.complete(folder, found["files"])
    loader.askable(config.questions, folder)
    path = folder / loader.LENGTHS_FILE
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DamagedError, match=f"{loader.LENGTHS_FILE} is damaged"):
        loader.askable(config.questions, folder)
