"""One reading of a path argument, and: what is written under a name that was taken can be read again."""

import json
import os
import pathlib
import string
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ttcjax.config import ExperimentConfig, SamplerConfig
from ttcjax.engine.loading import load_engine
from ttcjax.eval.records import sample_rows
from ttcjax.pipeline import run, solve
from ttcjax.runtime.checkpoint import Checkpoints, load_params, save_params
from ttcjax.runtime.errors import UserError
from ttcjax.runtime.files import resolve, resolve_workdir
from ttcjax.runtime.progress import MetricWriter
from ttcjax.testing import folders

PARAMS = {"layers": {"w": np.arange(6, dtype=np.float32).reshape(2, 3)}}
METADATA = {"kind": "policy", "model": {}, "tokenizer": "abc"}


def test_every_spelling_of_a_folder_is_one_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for spelling in ("runs/a", "runs/a/", "./runs/a", "~/runs/a", "~/runs/a//", str(tmp_path / "runs" / "a")):
        assert os.fspath(resolve(spelling)) == str(tmp_path / "runs" / "a"), spelling


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("", "is empty: name a folder, or . for the current one"),
        ("   ", "is empty"),
        ("a\x00b", "control character"),
        ("a\x1b[31m", "control character"),
        ("a\x9bb", "control character"),
        ("a\ud800b", "no Unicode"),
        ("~nobody-of-that-name/x", "there is no such user"),
        ("gs:/bucket/x", "begins with gs:// and the bucket's name"),
        ("gs://", "begins with gs:// and the bucket's name"),
        ("s3://bucket/x", "unknown storage s3://"),
        ("https://host/x", "unknown storage https://"),
    ],
)
def test_what_is_no_path_is_refused_in_one_line(path, words):
    with pytest.raises(UserError) as error:
        resolve(path, "--workdir")
    assert words in str(error.value)
    assert str(error.value).startswith("--workdir")
    assert str(error.value).isprintable()


def test_a_bucket_without_its_library_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(UserError, match=r"needs the library gcsfs.*pip install 'ttcjax\[data\]'"):
        resolve("gs://bucket/run")


def test_a_file_where_a_folder_is_due_and_the_other_way_round(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file, and a folder is due"):
        resolve(tmp_path / "file", "--data.dir", kind="folder")
    with pytest.raises(UserError, match="is a folder, and a file is due"):
        resolve(tmp_path, "CONFIG", kind="file")


@pytest.mark.parametrize("char", "*?[]\\")
def test_characters_that_hide_a_checkpoint_from_its_reader_are_refused(tmp_path, char):
    """A policy used to be trained under `[a-b]` and never found again."""
    with pytest.raises(UserError, match="takes for a pattern"):
        resolve_workdir(tmp_path / f"a{char}b")
    with pytest.raises(UserError, match="takes for a pattern"):
        run.run(ExperimentConfig(workdir=str(tmp_path / f"x{char}")))
    assert not list(tmp_path.iterdir()), "it was refused after something had been written"


@pytest.mark.parametrize(
    "call",
    [
        lambda path: run.run(ExperimentConfig(workdir=path)),
        lambda path: list(run.states(path)),
        lambda path: solve.solve("1+1?", path),
        lambda path: load_engine(path, SamplerConfig()),
        lambda path: load_params(path),
        lambda path: save_params(path, PARAMS, METADATA),
        lambda path: Checkpoints(path, keep=1, fingerprint="f"),
    ],
    ids=["run", "list", "solve", "load_engine", "load_params", "save_params", "Checkpoints"],
)
@pytest.mark.parametrize("path", ["", "a[b]", "~nobody-of-that-name", "gs:/x"])
def test_every_door_reads_a_path_alike(tmp_path, monkeypatch, call, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError):
        call(path)
    assert not list(tmp_path.iterdir())


NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0"),
    min_size=1,
    max_size=12,
).filter(lambda name: name not in (".", "..") and len(name.encode()) < 100)
AWKWARD = st.sampled_from(
    ["%41", "a b", " a", "a ", "a@3", "{a,b}", "a.partial", "-x", "~", "#1", "$HOME", "'", '"', "a=1", "x.old-1", "gs:"]
    + [f"a{char}" for char in string.punctuation if char != "/"]
)


@given(name=st.one_of(AWKWARD, NAMES))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_under_any_name_that_is_taken_everything_can_be_read_back(tmp_path, name):
    try:
        folder = resolve_workdir(tmp_path / name)
    except UserError:
        return
    save_params(folder / "policy" / "best", PARAMS, METADATA)
    params, _ = load_params(folder / "policy" / "best")
    np.testing.assert_array_equal(params["layers"]["w"], PARAMS["layers"]["w"])
    with Checkpoints(folder / "policy", keep=2, fingerprint="f") as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, PARAMS, {"step": step})
    with Checkpoints(folder / "policy", keep=2, fingerprint="f") as checkpoints:
        restored = checkpoints.restore(PARAMS)
    assert restored is not None
    assert restored[0] == 2
    with MetricWriter(folder / "policy") as writer:
        writer.write(1, "train", {"loss": 1.0})
    assert json.loads((folder / "policy" / "metrics.jsonl").read_text())["loss"] == 1.0
    folders.complete(folder / "policy", ["best/files.json"])
    assert [state for stage, state, _ in run.states(folder) if stage == "policy"] == ["complete"]
    path = folder / "bank" / "shard-00000.parquet"
    sample_rows.parquet.write_shard(path, [], sample_rows.SCHEMA)
    folders.complete(folder / "bank")
    assert sample_rows.read_folder(folder / "bank").num_rows == 0


@pytest.mark.parametrize("name", ["%41 b", "a@3", "{x}", "naïve π 数", "a'b\"c", "-x", "#&;|$()"])
def test_a_data_stage_under_an_awkward_name_is_read_back(tmp_path, name):
    from ttcjax.config import DataConfig, TokenizerConfig
    from ttcjax.data import loader, prepare

    config = ExperimentConfig(
        data=DataConfig(num_train=60, num_valid=7, num_test=7),
        tokenizer=TokenizerConfig(vocab_size=420),
        sampler=SamplerConfig(max_tokens=32),
    )
    folder = resolve_workdir(tmp_path / name)
    folders.run_stage(prepare.STAGE, config, folder, folder / "data")
    _, splits = loader.askable(config.questions, folder / "data")
    assert [len(splits.train), len(splits.valid), len(splits.test)] == [60, 7, 7]
    tokenizer = loader.tokenizer(folder / "data")
    assert tokenizer.decode(tokenizer.encode("1 + 2")) == "1 + 2"


def test_a_config_path_is_read_like_any_other(tmp_path, monkeypatch):
    from ttcjax.config.load import load_config

    monkeypatch.setenv("HOME", str(tmp_path))
    source = "from ttcjax.config import ExperimentConfig\ndef get_config():\n    return ExperimentConfig(name='mine')\n"
    (tmp_path / "mine.py").write_text(source)
    assert load_config("~/mine.py").name == "mine"
    for path, words in (("", "is empty"), (str(tmp_path), "is a folder"), ("~/other.py", "no config file")):
        with pytest.raises(UserError, match=words):
            load_config(path)
    assert pathlib.Path(tmp_path / "mine.py").exists()
