"""The loop ends with the same parameters however it was interrupted, and stops when it should."""

import dataclasses
import json
import logging
import math
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests import rounding
from tests.machine import need_devices
from ttcjax.config import ModelConfig, OptimizerConfig, TrainConfig
from ttcjax.parallel import make_mesh
from ttcjax.runtime.checkpoint import load_params
from ttcjax.runtime.errors import UserError
from ttcjax.runtime.stop import Stopped
from ttcjax.train import losses
from ttcjax.train.batches import train_batches, valid_batches
from ttcjax.train.loop import (
    DivergedError,
    FitResult,
    decay_mask,
    fit,
    in_training,
    init_state,
    learning_rate,
    make_optimizer,
    make_train_step,
)

VOCAB, T = 13, 16
POSITIONS = 8 * T
"""Positions of a batch: a gradient has no longer sum."""
CONFIG = TrainConfig(
    steps=12,
    batch_size=8,
    seq_len=T,
    optimizer=OptimizerConfig(learning_rate=0.05, warmup_steps=2, weight_decay=0.1),
    validate_every=3,
    checkpoint_every=4,
    log_every=2,
    seed=3,
)


def _examples(count=60):
    rng = np.random.default_rng(0)
    examples = []
    for _ in range(count):
        ids = (np.cumsum(rng.integers(1, 3, rng.integers(5, 15))) % VOCAB).astype(np.int32)
        weights = rng.integers(0, 2, len(ids) - 1).astype(np.float32)
        examples.append({"tokens": ids[:-1], "targets": ids[1:], "weights": weights})
    return examples


def _params():
    key = jax.random.key(0)
    return {"w": jax.random.normal(key, (VOCAB, VOCAB)), "bias": jnp.zeros((VOCAB,))}


def _loss(params, batch, dropout_key):
    """A bigram model with dropout on its logits."""
    logits = params["w"][batch["tokens"]] + params["bias"][None, None]
    if dropout_key is not None:
        logits = jnp.where(jax.random.bernoulli(dropout_key, 0.9, logits.shape), logits, 0.0)
    loss, hits = losses.token_cross_entropy(logits, batch["targets"], batch["weights"])
    weight = jnp.sum(batch["weights"])
    return loss, weight, {"accuracy": (hits, weight)}


def _loss_without_dropout(params, batch, dropout_key):
    return _loss(params, batch, None)


class _Stopping:
    """Batches that run `action` before batch `step` (from 1) is handed out."""

    def __init__(self, batches, step, action):
        self.batches, self.step, self.action, self.count = batches, step, action, 0

    def __next__(self):
        self.count += 1
        if self.count == self.step:
            self.action()
        return next(self.batches)

    def get_state(self):
        return self.batches.get_state()

    def set_state(self, state):
        self.batches.set_state(state)


def _train_batches(config=CONFIG):
    return train_batches(_examples(), batch_size=config.batch_size, seq_len=T, seed=config.seed)


def _fit(folder, config=CONFIG, loss=_loss, batches=None, **kwargs) -> FitResult:
    return fit(
        config,
        loss,
        kwargs.pop("params", None) or _params(),
        batches or _train_batches(config),
        valid_batches(_examples(20), batch_size=config.batch_size, seq_len=T),
        folder,
        name="test",
        metadata={"kind": "policy"},
        mesh=kwargs.pop("mesh", make_mesh({"data": 1})),
        **kwargs,
    )


def _same(a, b):
    return jax.tree.all(jax.tree.map(np.array_equal, jax.device_get(a), jax.device_get(b)))


def _events(folder, kind):
    events = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for event in events:
        for wall in ("time", "tokens_per_second"):
            event.pop(wall, None)
    return [event for event in events if event.pop("kind") == kind]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    return folder, _fit(folder)


def test_training_learns_and_says_so(uninterrupted):
    folder, result = uninterrupted
    train, valid = _events(folder, "train"), _events(folder, "valid")
    assert [e["step"] for e in train] == [2, 4, 6, 8, 10, 12]
    assert [e["step"] for e in valid] == [3, 6, 9, 12]
    assert set(train[0]) == {"step", "loss", "accuracy", "lr", "grad_norm"}
    assert valid[-1]["loss"] < valid[0]["loss"]
    assert result.train_loss == train[-1]["loss"]
    summary = json.loads(json.dumps(result.summary()))
    assert summary["params"] == VOCAB * VOCAB + VOCAB
    assert summary["steps"] == 12


def test_losses_in_the_log_are_means_over_weights(uninterrupted):
    """The first logged loss against a numpy computation at the initial parameters' first step."""
    folder, _ = uninterrupted
    config = dataclasses.replace(CONFIG, steps=1, log_every=1)
    result = _fit(folder / "one", config, _loss_without_dropout)
    batch, params = next(_train_batches()), jax.device_get(_params())
    logits = params["w"][batch["tokens"]].astype(np.float64)
    nll = np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, batch["targets"][..., None], -1)[..., 0]
    want = (nll * batch["weights"]).sum() / batch["weights"].sum()
    error = rounding.of_log_softmax(VOCAB, np.abs(logits).max()) + rounding.of(POSITIONS + 1) * want
    assert abs(result.train_loss - want) <= error
    assert result.tokens_seen == (batch["segment_ids"] > 0).sum()


def test_best_is_the_lowest_validation(uninterrupted):
    folder, result = uninterrupted
    valid = _events(folder, "valid")
    best = min(valid, key=lambda e: e["loss"])
    _, metadata = load_params(folder / "best")
    assert (result.valid_loss, result.best_step) == (best["loss"], best["step"])
    assert (metadata["valid_loss"], metadata["step"], metadata["kind"]) == (best["loss"], best["step"], "policy")
    assert result.valid_metrics == {"accuracy": best["accuracy"]}


def test_the_callers_parameters_survive(tmp_path):
    params = _params()
    mesh = make_mesh({"data": 1})
    config = dataclasses.replace(CONFIG, steps=1)
    valid = valid_batches(_examples(20), batch_size=8, seq_len=T)
    fit(config, _loss, params, _train_batches(), valid, tmp_path, name="t", metadata={}, mesh=mesh)
    assert _same(params, _params()), "donation must not eat the arguments of fit"


@pytest.mark.parametrize("stop", [1, 4, 5, 8, 11])
def test_a_run_that_broke_off_resumes_bit_for_bit(tmp_path, uninterrupted, stop):
    def fail():
        raise RuntimeError("broken off")

    with pytest.raises(RuntimeError, match="broken off"):
        _fit(tmp_path, batches=_Stopping(_train_batches(), stop, fail))
    resumed = _fit(tmp_path)
    folder, whole = uninterrupted
    assert _same(resumed.params, whole.params)
    assert resumed.summary() == whole.summary()
    assert _same(load_params(tmp_path / "best")[0], load_params(folder / "best")[0])
    for kind in ("train", "valid"):
        assert _events(tmp_path, kind) == _events(folder, kind), "no event may be doubled or missing"


def test_a_finished_run_is_not_trained_again(tmp_path, uninterrupted):
    folder, whole = uninterrupted
    shutil.copytree(folder, tmp_path / "copy")

    def fail():
        raise AssertionError("took another batch")

    again = _fit(tmp_path / "copy", batches=_Stopping(_train_batches(), 1, fail))
    assert again.summary() == whole.summary()
    assert _same(again.params, whole.params)


def test_a_damaged_checkpoint_still_leads_to_the_same_parameters(tmp_path, uninterrupted, caplog):
    folder, whole = uninterrupted
    shutil.copytree(folder, tmp_path / "copy")
    largest = max((tmp_path / "copy/checkpoints/12/state").rglob("*"), key=lambda p: p.stat().st_size * p.is_file())
    os.truncate(largest, 10)
    with caplog.at_level(logging.WARNING):
        resumed = _fit(tmp_path / "copy")
    assert "checkpoints/12 is damaged" in caplog.text
    assert _same(resumed.params, whole.params)


@pytest.mark.parametrize("stop", [4, 6])
def test_sigterm_saves_and_the_rerun_ends_the_same(tmp_path, uninterrupted, stop):
    before = signal.getsignal(signal.SIGTERM)
    kill = lambda: os.kill(os.getpid(), signal.SIGTERM)  # noqa: E731
    with pytest.raises(Stopped, match=f"at step {stop}") as stopped:
        _fit(tmp_path, batches=_Stopping(_train_batches(), stop, kill))
    assert stopped.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before
    assert (tmp_path / "checkpoints" / str(stop)).exists()
    assert _same(_fit(tmp_path).params, uninterrupted[1].params)


KILLED = """
import sys, time
sys.path[:0] = {folders!r}
import jax
jax.config.update("jax_num_cpu_devices", {devices})  # As in conftest: the number of threads decides the order of sums.
import test_loop
slow = test_loop._Stopping(test_loop._train_batches(), 0, None)
slow.__class__.__next__ = lambda self: (time.sleep(0.1), next(self.batches))[1]
test_loop._fit(sys.argv[1], batches=slow)
"""


def test_kill_9_at_any_moment_and_a_rerun_end_the_same(tmp_path, uninterrupted):
    folders = [str(folder) for folder in pathlib.Path(__file__).parents[:3]]  # The last one has `tests` in it.
    script = KILLED.format(folders=folders, devices=jax.device_count())
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "checkpoints" / "4").exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.25)
    process.kill()
    process.communicate()
    resumed = _fit(tmp_path)
    folder, whole = uninterrupted
    assert resumed.summary() == whole.summary()
    assert _same(resumed.params, whole.params)
    assert _events(tmp_path, "train") == _events(folder, "train")


def test_a_loss_that_is_not_finite_stops_and_names_the_last_good_checkpoint(tmp_path):
    def loss(params, batch, key):
        total, weight, metrics = _loss(params, batch, key)
        # The bias starts at 0 and grows; past some size the loss breaks.
        broken = jnp.sum(jnp.abs(params["bias"])) > 2.5
        return jnp.where(broken, jnp.nan, total), weight, metrics

    with pytest.raises(DivergedError) as error:
        _fit(tmp_path, loss=loss)
    found = re.search(r"not finite at step (\d+); last good checkpoint: .*checkpoints/(\d+);", str(error.value))
    assert found
    assert int(found[2]) == (int(found[1]) - 1) // 4 * 4
    assert "\n" not in str(error.value)
    assert "learning_rate" in str(error.value)
    state, _ = load_params(tmp_path / "best")
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


def test_divergence_before_the_first_checkpoint_says_so(tmp_path):
    def loss(params, batch, key):
        total, weight, metrics = _loss(params, batch, key)
        return total * jnp.inf, weight, metrics

    with pytest.raises(DivergedError, match="at step 1; last good checkpoint: none yet"):
        _fit(tmp_path, loss=loss)


def test_patience_stops_and_keeps_the_best(tmp_path):
    config = dataclasses.replace(
        CONFIG, steps=60, patience=2, optimizer=OptimizerConfig(learning_rate=1.0, schedule="constant", warmup_steps=0)
    )
    result = _fit(tmp_path, config)
    valid = _events(tmp_path, "valid")
    assert result.steps == valid[-1]["step"] < 60
    assert result.best_step == result.steps - 2 * config.validate_every
    assert load_params(tmp_path / "best")[1]["step"] == result.best_step
    assert _fit(tmp_path, config).summary() == result.summary(), "a run out of patience must not go on when rerun"


@pytest.mark.parametrize(
    ("losses_by_validation", "past", "taken"),
    [
        ([5, 3, 4, 6, 7, 8], 0, 4),
        ([5, 3, 4, 6, 7, 8], 1, 6),
        ([5, 3, 4, 6, 7, 8], 3, 10),
        ([5, 3, 4, 2, 3, 4], 1, 10),  # The lower minimum comes later and counts.
        ([5, 3, 2, 3, 1, 4], 2, 12),  # The run ends before: the last parameters.
        ([6, 5, 4, 3, 2, 1], 1, 12),
        ([6, 5, 4, 3, 2, 1], 0, 12),
    ],
)
def test_parameters_are_taken_past_the_minimum(tmp_path, losses_by_validation, past, taken):
    """Every step raises `x` by 1, and the validation loss is scripted by `x`."""
    table = jnp.repeat(jnp.asarray(losses_by_validation, jnp.float32), 2)

    def loss(params, batch, key):
        one = jnp.ones((), jnp.float32)
        if key is not None:
            return -params["x"], one, {}
        return table[jnp.round(params["x"]).astype(jnp.int32) - 1], one, {}

    optimizer = OptimizerConfig(learning_rate=1.0, schedule="constant", warmup_steps=0)
    config = dataclasses.replace(CONFIG, optimizer=optimizer, validate_every=2, past_minimum=past)
    batches = _train_batches(config)
    valid = valid_batches(_examples(), batch_size=config.batch_size, seq_len=T)[:1]
    result = fit(config, loss, {"x": jnp.zeros(())}, batches, valid, tmp_path, name="toy", metadata={})
    params, metadata = load_params(tmp_path / "best")
    assert (result.taken_step, metadata["step"]) == (taken, taken)
    assert round(float(params["x"])) == taken, "Adam's first steps are of the learning rate but for rounding"
    assert result.best_step == 2 * (1 + int(np.argmin(losses_by_validation)))


class _Scripted:
    """A run whose validation metrics are a list; every step raises `x` by 1."""

    LOSS = (5.0, 4.0, 3.0, 2.0, 1.0, 0.5)
    OWN = (0.9, 0.4, 0.6, 0.7, 0.3, 0.8)

    @classmethod
    def loss(cls, params, batch, key):
        one = jnp.ones((), jnp.float32)
        if key is not None:
            return -params["x"], one, {"own": (one, one)}
        at = jnp.round(params["x"]).astype(jnp.int32) - 1
        joint, own = jnp.asarray(cls.LOSS)[at], jnp.asarray(cls.OWN)[at]
        # Of another weight than the loss: what chooses is a mean too.
        return joint, one, {"own": (3 * own, 3 * one)}

    @classmethod
    def fit(cls, folder, batches=None, choose_by="own", **changes):
        optimizer = OptimizerConfig(learning_rate=1.0, schedule="constant", warmup_steps=0)
        config = dataclasses.replace(
            CONFIG, **{"optimizer": optimizer, "steps": 6, "validate_every": 1, "checkpoint_every": 1, **changes}
        )
        batches = batches or _train_batches(config)
        valid = valid_batches(_examples(), batch_size=config.batch_size, seq_len=T)[:1]
        start = {"x": jnp.zeros(())}
        return fit(config, cls.loss, start, batches, valid, folder, name="toy", metadata={}, choose_by=choose_by)


@pytest.mark.parametrize(
    ("choose_by", "changes", "best", "taken", "steps"),
    [
        ("loss", {}, 6, 6, 6),
        ("own", {}, 5, 5, 6),
        ("own", {"patience": 2}, 2, 2, 4),  # The loss falls all the while.
        ("own", {"patience": 3}, 5, 5, 6),
        ("own", {"past_minimum": 1, "patience": 2}, 2, 3, 4),
    ],
)
def test_a_named_metric_chooses_and_stops(tmp_path, choose_by, changes, best, taken, steps):
    result = _Scripted.fit(tmp_path, choose_by=choose_by, **changes)
    assert (result.best_step, result.taken_step, result.steps) == (best, taken, steps)
    assert result.valid_loss == pytest.approx(_Scripted.LOSS[best - 1])
    assert result.valid_metrics["own"] == pytest.approx(_Scripted.OWN[best - 1])
    assert result.summary()["chosen_by"] == choose_by
    params, metadata = load_params(tmp_path / "best")
    assert (round(float(params["x"])), metadata["step"], metadata["chosen_by"]) == (taken, taken, choose_by)
    assert metadata["valid_loss"] == pytest.approx(_Scripted.LOSS[taken - 1])


@pytest.mark.parametrize("stop", [2, 3, 4])
def test_a_resumed_run_goes_on_with_what_its_metric_has_seen(tmp_path, stop):
    def fail():
        raise RuntimeError("broken off")

    whole = _Scripted.fit(tmp_path / "whole", patience=2)
    with pytest.raises(RuntimeError, match="broken off"):
        _Scripted.fit(tmp_path / "cut", _Stopping(_train_batches(), stop, fail), patience=2)
    assert _Scripted.fit(tmp_path / "cut", patience=2).summary() == whole.summary()
    assert load_params(tmp_path / "cut" / "best")[1]["step"] == 2


def test_a_run_does_not_go_on_with_another_choice(tmp_path):
    _Scripted.fit(tmp_path, steps=6)
    with pytest.raises(UserError, match="another configuration"):
        _Scripted.fit(tmp_path, choose_by="loss", steps=6)


def test_a_metric_that_cannot_choose_says_so(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="no metric 'accuracy' to choose by: loss, own"):
        _Scripted.fit(tmp_path / "a", choose_by="accuracy")
    monkeypatch.setattr(_Scripted, "OWN", (0.9, math.nan, 0.6, 0.7, 0.3, 0.8))
    with pytest.raises(DivergedError, match="validation own is not finite at step 2"):
        _Scripted.fit(tmp_path / "b")


@pytest.mark.parametrize(("own", "models", "expected"), [(None, 0.2, 0.2), (0.0, 0.2, 0.0), (0.1, 0.2, 0.1)])
def test_a_runs_own_dropout_stands_in_place_of_the_models(own, models, expected):
    model = ModelConfig(dropout=models, d_ff=32)
    found = in_training(model, TrainConfig(dropout=own))
    assert found == ModelConfig(dropout=expected, d_ff=32)


def test_without_validation_steps_there_is_one_at_the_end(tmp_path):
    _fit(tmp_path, dataclasses.replace(CONFIG, validate_every=0))
    assert [e["step"] for e in _events(tmp_path, "valid")] == [12]


def test_checkpoints_of_another_configuration_are_refused(tmp_path):
    _fit(tmp_path, dataclasses.replace(CONFIG, steps=4))
    with pytest.raises(UserError, match="another configuration"):
        _fit(tmp_path)


def test_what_changes_no_parameter_may_change_between_runs(tmp_path):
    first = _fit(tmp_path)
    again = _fit(tmp_path, dataclasses.replace(CONFIG, log_every=5, keep_checkpoints=1))
    assert again.steps == first.steps, "the finished run was not taken up again"
    for a, b in zip(jax.tree.leaves(first.params), jax.tree.leaves(again.params), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run on one device and whole batches, and how far from it rounding may lead."""

    def run(params):
        return _fit(tmp_path_factory.mktemp("whole"), loss=_loss_without_dropout, params=params)

    def numbers(params):
        result = run(params)
        return result.params, result.train_loss

    return run(_params()), rounding.noise(numbers, _params(), POSITIONS)


@pytest.mark.parametrize(("devices", "accumulate"), [(1, 4), (8, 1), (2, 4), (4, 2)])
def test_neither_devices_nor_micro_batches_change_the_result(tmp_path, whole, devices, accumulate):
    """Weights differ between rows, so a mean of means would differ."""
    need_devices(devices)
    config = dataclasses.replace(CONFIG, accumulate=accumulate)
    result, allowed = whole
    split = _fit(tmp_path, config, _loss_without_dropout, mesh=make_mesh({"data": devices}))
    for a, b in zip(jax.tree.leaves(result.params), jax.tree.leaves(split.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=allowed)
    assert abs(split.train_loss - result.train_loss) <= allowed
    assert split.tokens_seen == result.tokens_seen


def test_accumulated_gradients_equal_those_of_the_whole_batch():
    batch = jax.tree.map(jnp.asarray, next(_train_batches()))

    def numbers(accumulate):
        config = dataclasses.replace(CONFIG, accumulate=accumulate)
        step = make_train_step(config, _loss_without_dropout, make_mesh({"data": 1}))

        def run(params):
            state, sums = step(init_state(config, jax.tree.map(jnp.copy, params)), batch)
            return sums["grad_norm"], sums["loss_sum"] / sums["loss_weight"], state["params"]

        return run

    allowed = rounding.noise(numbers(1), _params(), POSITIONS)
    for a, b in zip(*(jax.tree.leaves(numbers(accumulate)(_params())) for accumulate in (1, 4)), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=allowed)


def test_dropout_masks_differ_between_steps_and_not_between_runs():
    step = make_train_step(CONFIG, _loss, make_mesh({"data": 1}))
    batch = jax.tree.map(jnp.asarray, next(_train_batches()))

    def loss_at(number):
        state = init_state(CONFIG, _params())
        return step({**state, "step": jnp.int32(number)}, batch)[1]["loss_sum"]

    assert loss_at(5) == loss_at(5)
    assert loss_at(5) != loss_at(6)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_the_learning_rate_rises_to_the_peak_and_ends_where_it_should(schedule):
    config = OptimizerConfig(learning_rate=0.1, warmup_steps=10, schedule=schedule, final_fraction=0.2)
    rates = np.asarray([learning_rate(config, 50)(jnp.int32(i)) for i in range(50)])
    error = rounding.of(16)  # Products, sums and a cosine, none of them small by cancellation.
    np.testing.assert_allclose(rates[:10], 0.1 * np.arange(1, 11) / 10, rtol=error)
    assert rates[-1] == pytest.approx(0.1 if schedule == "constant" else 0.02, rel=error)
    assert (np.diff(rates[10:]) <= 0.1 * error).all()
    if schedule == "cosine":
        middle = 0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi * 20 / 40))
        assert rates[29] == pytest.approx(0.1 * middle, rel=error)


def test_no_schedule_divides_by_zero_where_the_warm_up_is_the_whole_run():
    config = OptimizerConfig(learning_rate=0.1, warmup_steps=10)
    assert learning_rate(config, 5)(jnp.int32(4)) == pytest.approx(0.05, rel=rounding.of(16))


def test_weight_decay_is_on_matrices_only():
    params = {
        "embed": jnp.ones((4, 3)),
        "final_norm": jnp.ones((3,)),
        "layers": {
            "attention": {"norm": jnp.ones((2, 3)), "q": jnp.ones((2, 3, 2, 2)), "q_bias": jnp.ones((2, 2, 2))},
            "mlp": {"up": jnp.ones((2, 3, 5))},
        },
        "value": {"w": jnp.ones((3,)), "b": jnp.ones(())},
    }
    config = OptimizerConfig(learning_rate=0.1, warmup_steps=0, weight_decay=0.5, schedule="constant")
    optimizer = make_optimizer(config, 10)
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = jax.jit(lambda: optimizer.update(zeros, optimizer.init(params), params))()
    decayed = jax.tree.map(lambda x: bool((x < 1).all()), optax.apply_updates(params, updates))
    assert decayed == decay_mask(params)
    assert decayed == {
        "embed": True,
        "final_norm": False,
        "layers": {"attention": {"norm": False, "q": True, "q_bias": False}, "mlp": {"up": True}},
        "value": {"w": False, "b": False},
    }


def test_clipping_bounds_the_gradient_that_adam_sees():
    params = {"w": jnp.zeros((2, 2))}
    big = {"w": jnp.full((2, 2), 1e6)}
    optimizer = make_optimizer(OptimizerConfig(clip_norm=1.0), 10)
    state = optimizer.update(big, optimizer.init(params), params)[1]
    mu = optax.tree.get(state, "mu")
    # 1 - b1 is a tenth of what rounds: ten roundings of the difference, and as many of norm and products.
    assert optax.tree.norm(mu) == pytest.approx(0.1, rel=rounding.of(20)), "(1 - b1) times a gradient of norm 1"
