"""The page on own strategies and data sets: its code is run, and what it registers is used as any other."""

import json
import pathlib
import re

import numpy as np
import pytest

from ttcjax import search
from ttcjax.config import DataConfig, SweepConfig, TokenizerConfig
from ttcjax.data import gsm8k, loader
from ttcjax.data.sets import DATA_SETS
from ttcjax.runtime.errors import UserError
from ttcjax.search import registry

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "bring_your_own.md"


@pytest.fixture(scope="module")
def page():
    """The names that the page's Python defines; what it registers is gone afterwards."""
    names: dict[str, object] = {}
    for code in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S):
        exec(compile(code, PAGE.name, "exec"), names)
    yield names
    registry.STRATEGIES._own.pop("two_heats")
    DATA_SETS._own.pop("riddles")


def test_a_strategy_has_a_name_that_is_read_back(page):
    strategy = search.parse("two_heats:n=5,warm=1.5")
    assert strategy == page["TwoHeats"](n=5, warm=1.5)
    assert search.parse(strategy.name) == strategy
    registry.check_for_sweep(SweepConfig(strategies=("majority", "two_heats")).strategies)


def test_a_strategy_runs_as_any_other(page, tiny):
    engine = tiny.engine()
    prompts = tiny.prompts(engine)[:3]
    session = search.Session(engine, gsm8k.TASK, prompts)
    found = search.run(search.parse("two_heats:n=3"), session, seed=4)
    assert [len(outcome.candidates) for outcome in found] == [3] * 3
    cool = engine.sample(prompts, 2, 4, temperature=0.5)
    warm = engine.sample(prompts, 1, 4, first_sample=2, temperature=1.0)
    for outcome, first, last in zip(found, cool, warm, strict=True):
        assert [c.tokens for c in outcome.candidates] == [c.tokens for c in (*first, *last)]


def write(folder, faulty=0):
    rng = np.random.default_rng(0)
    for name, count in (("train.jsonl", 30), ("test.jsonl", 5)):
        rows = [
            {"riddle": f"What is {a} and {b} in {name}?", "solution": f"I add {a} and {b}.\nAnswer: {a + b}"}
            for a, b in rng.integers(0, 1000, (count, 2)).tolist()
        ]
        lines = [json.dumps(row) for row in rows] + ["{}"] * faulty
        (folder / name).write_text("\n".join(lines))


def test_a_data_set_is_read_screened_and_graded(page, tmp_path):
    write(tmp_path)
    config = DataConfig(name="riddles", dir=str(tmp_path), num_train=20, num_valid=4, num_test=5)
    assert loader.prepare(config, tmp_path / "data") == []
    task, splits = loader.load(config, tmp_path / "data")
    assert [len(split) for split in (splits.train, splits.valid, splits.test)] == [20, 4, 5]
    for example in splits.test:
        assert task.grade(task.extract(example.solution), example.answer)
    write(tmp_path, faulty=1)
    with pytest.raises(UserError, match=r'each line needs "riddle" and "solution"'):
        loader.prepare(config, tmp_path / "again")


def test_what_an_entry_point_names_is_there(monkeypatch):
    import importlib.metadata

    point = importlib.metadata.EntryPoint("installed", "ttcjax.data.gsm8k:DATA_SET", "ttcjax.data_sets")
    monkeypatch.setitem(DATA_SETS.__dict__, "_installed", {"installed": point})
    assert loader.task(DataConfig(name="installed", dir="nowhere")) is gsm8k.TASK
    assert {"procmath", "gsm8k", "installed"} <= set(DATA_SETS)


def test_a_name_is_given_once(page):
    with pytest.raises(ValueError, match=r"'two_heats' is taken in ttcjax\.strategies"):
        search.register("two_heats", TokenizerConfig)


def test_an_unknown_data_set_is_told_with_the_nearest_one():
    with pytest.raises(
        ValueError, match=r"data.name must be one of procmath, gsm8k.*, not 'gsm8'; did you mean gsm8k\?"
    ):
        loader.task(DataConfig(name="gsm8"))
