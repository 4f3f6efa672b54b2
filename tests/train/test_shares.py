"""Which devices a training run uses, told for a whole experiment before anything starts."""

import dataclasses
import pathlib
import runpy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttcjax import parallel
from ttcjax.config import ExperimentConfig, ORMConfig, RevisionConfig, TrainConfig
from ttcjax.pipeline.stages import STAGES
from ttcjax.train.shares import RunShare, micro_batch_share, run_share

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
TRAINING = {"policy", "prm", "revision", "orm", "base_orm", "larger"}


def shares(config: ExperimentConfig, devices: int) -> list[tuple[str, RunShare]]:
    """Every training run of an experiment, with its stage."""
    return [
        (stage.name, run_share(name, train, devices))
        for stage in STAGES
        if stage.wanted(config)
        for name, train in stage.declared.trainings(stage.settings(config))
    ]


@given(st.integers(1, 5000), st.integers(1, 300), st.booleans())
def test_shares_hold_all_rows_and_no_device_is_there_for_padding_alone(rows, devices, all_devices):
    found = parallel.share(rows, devices, all_devices=all_devices)
    assert found.padding == found.devices * found.each - rows >= 0, "a row has no place"
    assert found.each == min(each for each in range(1, rows + 1) if each * devices >= rows), "a step takes longer"
    if all_devices:
        assert found.devices == devices
    else:
        assert found.padding < found.each, "a device holds padding alone"
        assert found.devices <= devices


@pytest.mark.parametrize(
    ("rows", "devices", "used", "each", "padding"),
    [
        (16, 12, 8, 2, 0),
        (16, 6, 6, 3, 2),
        (16, 7, 6, 3, 2),
        (16, 5, 4, 4, 0),
        (8, 6, 4, 2, 0),
        (4, 16, 4, 1, 0),
        (16, 1, 1, 16, 0),
        (1, 8, 1, 1, 0),
    ],
)
def test_shares_worked_out_by_hand(rows, devices, used, each, padding):
    found = parallel.share(rows, devices)
    assert (found.devices, found.each, found.padding) == (used, each, padding)


def test_processes_of_one_job_use_all_their_devices():
    found = parallel.share(16, 12, all_devices=True)
    assert (found.devices, found.each, found.padding) == (12, 2, 8)


@pytest.mark.parametrize(("rows", "devices"), [(0, 1), (1, 0), (-3, 2)])
def test_shares_of_nothing_are_refused(rows, devices):
    with pytest.raises(ValueError, match="must be at least 1"):
        parallel.share(rows, devices)


@pytest.mark.parametrize(
    "name", ["procmath_tiny", "procmath_full", "procmath_revisions", "procmath_study", "gsm8k_scratch"]
)
@pytest.mark.parametrize("devices", [1, 6, 12])
def test_every_training_stage_of_a_config_has_its_line(name, devices):
    config: ExperimentConfig = runpy.run_path(str(CONFIGS / f"{name}.py"))["get_config"]()
    found = shares(config, devices)
    wanted = {stage.name for stage in STAGES if stage.wanted(config)}
    assert {stage for stage, _ in found} == wanted & TRAINING
    assert all(str(one).startswith(f"{one.name}: ") for _, one in found)
    assert len({one.name for _, one in found}) == len(found)


def test_the_lines_say_what_is_used():
    config: ExperimentConfig = runpy.run_path(str(CONFIGS / "procmath_full.py"))["get_config"]()
    found = {one.name: str(one) for _, one in shares(config, 6)}
    assert found == {
        "policy": "policy: 64 rows a step, 16 at a time, 3 a device on 6 of 6 devices, 2 rows of padding",
        "PRM": "PRM: 64 rows a step, 16 at a time, 3 a device on 6 of 6 devices, 2 rows of padding",
        "revision": "revision: 20 rows a step, 4 at a time, 1 a device on 4 of 6 devices, 0 rows of padding",
        "ORM history": "ORM history: 20 rows a step, 4 at a time, 1 a device on 4 of 6 devices, 0 rows of padding",
        "base ORM": "base ORM: 64 rows a step, 16 at a time, 3 a device on 6 of 6 devices, 2 rows of padding",
        "larger": "larger: 64 rows a step, 16 at a time, 3 a device on 6 of 6 devices, 2 rows of padding",
    }


def test_stages_that_train_several_models_have_a_line_for_each():
    revision = RevisionConfig(enabled=True)
    revision = dataclasses.replace(revision, rest_em=dataclasses.replace(revision.rest_em, chains=2))
    config = ExperimentConfig(revision=revision, orm=ORMConfig(variants=("history", "no_history"), base=True))
    names = [one.name for _, one in shares(config, 3)]
    assert names == ["policy", "PRM", "revision, offline", "revision", "ORM history", "ORM no_history", "base ORM"]


def test_a_micro_batch_is_what_is_shared():
    train = TrainConfig(batch_size=24, accumulate=4)
    assert micro_batch_share(train, 4) == parallel.Share(rows=6, devices=3, each=2)
    assert micro_batch_share(train, 4, processes=2) == parallel.Share(rows=6, devices=4, each=2)
