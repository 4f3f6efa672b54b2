"""Settings: JSON round trip, hashing, and what a wrong one says."""

import dataclasses
import math
import pathlib

import pytest

from ttcjax import config as config_lib
from ttcjax.config import ConfigError, DataConfig, ExperimentConfig, LabelConfig, ModelConfig, TrainConfig
from ttcjax.config.load import load_config

CONFIGS = sorted((pathlib.Path(__file__).parents[1] / "configs").glob("*.py"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_file_loads_and_survives_json(path):
    config = load_config(str(path))
    again = config_lib.from_dict(ExperimentConfig, config_lib.to_dict(config))
    assert again == config
    assert config_lib.config_hash(again) == config_lib.config_hash(config)
    assert config.name == path.stem, "a config is named after its file, so that results can be traced to it"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_file_says_how_to_run_it(path):
    docstring = path.read_text().split('"""')[1]
    assert "Command:" in docstring
    assert "Hardware:" in docstring


def test_hash_ignores_the_workdir_and_nothing_else():
    config = ExperimentConfig()
    base = config_lib.config_hash(config)
    assert config_lib.config_hash(dataclasses.replace(config, workdir="elsewhere")) == base
    for change in (
        {"name": "other"},
        {"data": DataConfig(seed=1)},
        {"model": ModelConfig(num_layers=3)},
        {"labels": LabelConfig(rollouts=17)},
        {"policy": TrainConfig(steps=1001)},
    ):
        assert config_lib.config_hash(dataclasses.replace(config, **change)) != base, f"{change} must change the hash"


def test_model_config_can_be_a_static_argument():
    assert hash(ModelConfig()) == hash(ModelConfig())


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"polcy": {}}, "unknown config key polcy; did you mean policy"),
        ({"policy": {"stpes": 3}}, "unknown config key policy.stpes; did you mean policy.steps"),
        ({"policy": {"steps": "3"}}, "policy.steps must be int, not '3'"),
        ({"policy": {"steps": True}}, "policy.steps must be int, not True"),
        ({"policy": {"optimizer": {"learning_rate": float("nan")}}}, "policy.optimizer.learning_rate must be finite"),
        ({"policy": 3}, "policy must be a table"),
        ({"sweep": {"budgets": [1, "2"]}}, r"sweep.budgets\[1\] must be int"),
        ({"sweep": {"budgets": 4}}, "sweep.budgets must be a list"),
        ({"sweep": {"samples": 4}}, "sweep.samples .4. must be at least the largest budget"),
        ({"model": {"num_heads": 4, "num_kv_heads": 3}}, "must divide model.num_heads"),
        ({"policy": {"batch_size": 10, "accumulate": 3}}, "must divide batch_size"),
        ({"policy": {"seq_len": 4096}}, "policy.seq_len .4096. must not exceed"),
        ({"sampler": {"max_tokens": 256}}, "so that a prompt has room"),
    ],
)
def test_wrong_settings_say_what_is_wrong(values, words):
    with pytest.raises(ConfigError, match=words) as caught:
        config_lib.from_dict(ExperimentConfig, values)
    assert "\n" not in str(caught.value)


def test_an_integer_is_taken_for_a_float():
    config = config_lib.from_dict(ExperimentConfig, {"sampler": {"temperature": 1}})
    assert isinstance(config.sampler.temperature, float)


def numbers(table, path=()):
    """Yield the path of every setting that holds a number with a fraction."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from numbers(value, (*path, key))
        elif isinstance(value, float):
            yield (*path, key)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_no_setting_is_nan_or_infinite(bad):
    """NaN passes any comparison the wrong way round: a clip_norm of NaN clipped nothing."""
    paths = list(numbers(config_lib.to_dict(ExperimentConfig())))
    assert ("policy", "optimizer", "clip_norm") in paths
    for path in paths:
        values = config_lib.to_dict(ExperimentConfig())
        table = values
        for key in path[:-1]:
            table = table[key]
        table[path[-1]] = bad
        with pytest.raises(ConfigError, match=path[-1]):
            config_lib.from_dict(ExperimentConfig, values)
