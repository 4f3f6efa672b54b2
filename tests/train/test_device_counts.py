"""Training on any number of devices: uneven batches are filled up, and what a step computes is the same."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ttcjax.config import ModelConfig, OptimizerConfig, TrainConfig
from ttcjax.data import procmath
from ttcjax.model import params as model_params
from ttcjax.parallel import make_mesh
from ttcjax.runtime.checkpoint import load_params
from ttcjax.search.context import Context
from ttcjax.train import losses
from ttcjax.train.batches import (
    JudgedAnswer,
    orm_examples,
    pad_rows,
    policy_examples,
    prm_examples,
    revision_examples,
    train_batches,
    valid_batches,
)
from ttcjax.train.loop import fit, init_state, make_train_step
from ttcjax.train.models import policy, prm
from ttcjax.train.shares import micro_batch_share
from ttcjax.verify.value_head import ValueHead

COUNTS = [2, 3, 5, 6, 7, 8]
eight = pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices")

ROWS, T = 16, 96
TRAIN = TrainConfig(
    steps=1,
    batch_size=ROWS,
    seq_len=T,
    optimizer=OptimizerConfig(warmup_steps=0, schedule="constant", clip_norm=0.0),
    seed=1,
)


@pytest.fixture(scope="module")
def cases(tiny):
    """The loss, the head and the batches of each kind of training, with dropout."""
    follower = ValueHead(likelihood=True)
    tokenizer, asked = tiny.tokenizer, list(procmath.generate("train", 90, seed=3))
    shape = ModelConfig(
        vocab_size=tokenizer.vocab_size,
        num_layers=1,
        d_model=16,
        num_heads=2,
        num_kv_heads=1,
        head_dim=8,
        d_ff=24,
        max_seq_len=256,
        dropout=0.1,
    )
    prompts = [procmath.TASK.prompt(example.question) for example in asked]
    solutions = [example.solution for example in asked]
    steps = [[1 / (1 + k) for k in range(len(text.split("\n")))] for text in solutions]
    context = Context(tokenizer, 1, restate=False)
    judged = [
        JudgedAnswer(example.id, prompt, (solution,) * (i % 2), solution, i % 3 == 0)
        for i, (example, prompt, solution) in enumerate(zip(asked, prompts, solutions, strict=True))
    ]
    shown = [(solution,) * (i % 2) for i, solution in enumerate(solutions)]
    return {
        "policy": (
            policy.make_loss(shape),
            shape,
            ("vocab",),
            policy_examples(zip(prompts, solutions, strict=True), tokenizer),
        ),
        "revision": (
            policy.make_loss(shape),
            shape,
            ("vocab",),
            revision_examples(zip(prompts, shown, solutions, strict=True), context, tokenizer, T),
        ),
        "prm": (
            prm.make_loss(shape, follower, imitation=0.5),
            shape,
            ("vocab", *follower.heads),
            prm_examples(zip(prompts, solutions, steps, strict=True), tokenizer),
        ),
        "orm": (
            prm.make_loss(shape, follower, imitation=1.0),
            shape,
            ("vocab", *follower.heads),
            orm_examples(judged, context, tokenizer, T, every_step=True),
        ),
    }


def one_step(config, loss, params, batch, devices):
    """Return the gradient of one step and the sums beside it."""
    share = micro_batch_share(config, devices)
    mesh = make_mesh({"data": share.devices})
    padded = pad_rows(batch, share.devices * config.accumulate)
    assert len(padded["tokens"]) == config.accumulate * share.devices * share.each
    sharding = jax.NamedSharding(mesh, jax.P("data"))
    step = make_train_step(config, loss, mesh)
    state = jax.device_put(init_state(config, jax.tree.map(jnp.copy, params)), jax.NamedSharding(mesh, jax.P()))
    state, sums = step(state, jax.device_put(padded, sharding))
    # After one step the first moment is the gradient times 1 - b1.
    first = optax.tree.get(jax.device_get(state["opt_state"]), "mu")
    return jax.tree.map(lambda x: x / (1 - config.optimizer.b1), first), jax.device_get(sums)


@eight
@pytest.mark.parametrize(
    ("kind", "accumulate", "counts"),
    [
        ("revision", 4, [3]),
        ("prm", 1, [7]),
        pytest.param("policy", 1, COUNTS, marks=pytest.mark.long),
    ],
)
def test_a_step_is_the_same_on_any_number_of_devices(cases, kind, accumulate, counts):
    """Dropout included: a mask that moved, or padding with a weight, would change a gradient by tenths.

    A gradient is a sum over the tokens of a batch. Taken in two orders, sums of n terms differ by at most 2 n u times
    the sum of the terms' absolute values (u: unit roundoff); the terms here are the rows' own gradients, each itself
    a sum over its tokens.
    """
    loss, shape, names, examples = cases[kind]
    config = dataclasses.replace(TRAIN, accumulate=accumulate)
    params = model_params.init(jax.random.key(0), shape, heads=names)
    batch = next(train_batches(examples, batch_size=ROWS, seq_len=T, seed=1))
    alone, sums = one_step(config, loss, params, batch, 1)
    rows = {key: jnp.asarray(x)[:, None] for key, x in batch.items()}
    parts = jax.jit(jax.vmap(jax.grad(lambda p, row: loss(p, row, None)[0]), in_axes=(None, 0)))(params, rows)
    weight = float(sums["loss_weight"])
    bound = jax.tree.map(lambda x: 2 * ROWS * T * 2.0**-24 * float(jnp.abs(x).sum(0).max()) / weight, parts)
    for devices in counts:
        found, other = one_step(config, loss, params, batch, devices)
        for (path, a), b, most in zip(
            jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(alone), jax.tree.leaves(bound), strict=True
        ):
            assert np.abs(a - b).max() <= most, f"{devices} devices: {jax.tree_util.keystr(path)}"
            assert most < 0.01 * np.abs(b).max(), "a bound so wide would let wrong masks pass"
        assert other["loss_sum"] == pytest.approx(sums["loss_sum"], rel=2 * ROWS * T * 2.0**-24)
        for key in sums:
            if key.endswith("_weight") or key == "tokens":
                assert other[key] == sums[key], f"padding counts in {key}"


@pytest.mark.parametrize(("rows", "padded"), [(1, 2), (16, 18), (4, 6), (8, 24)])
def test_the_random_numbers_of_rows_do_not_depend_on_padding(rows, padded):
    """What the dropout masks of real rows rest on."""
    key = jax.random.key(rows)
    want = jax.random.bernoulli(key, 0.5, (rows, 3, 7))
    np.testing.assert_array_equal(jax.random.bernoulli(key, 0.5, (padded, 3, 7))[:rows], want)


VOCAB = 13
TOY = TrainConfig(
    steps=6,
    batch_size=8,
    seq_len=16,
    optimizer=OptimizerConfig(learning_rate=0.05, warmup_steps=2),
    validate_every=3,
    checkpoint_every=2,
    log_every=1,
)


def toy_examples(count):
    rng = np.random.default_rng(0)
    ids = [(np.cumsum(rng.integers(1, 3, rng.integers(5, 15))) % VOCAB).astype(np.int32) for _ in range(count)]
    return [
        {"tokens": x[:-1], "targets": x[1:], "weights": rng.integers(0, 2, len(x) - 1).astype(np.float32)} for x in ids
    ]


def toy_loss(params, batch, dropout_key):
    """A bigram model with dropout on its logits."""
    logits = params["w"][batch["tokens"]]
    if dropout_key is not None:
        logits = jnp.where(jax.random.bernoulli(dropout_key, 0.8, logits.shape), logits, 0.0)
    loss, hits = losses.token_cross_entropy(logits, batch["targets"], batch["weights"])
    weight = jnp.sum(batch["weights"])
    return loss, weight, {"accuracy": (hits, weight)}


def toy_fit(folder, devices, config=TOY, stop=None):
    batches = train_batches(toy_examples(60), batch_size=config.batch_size, seq_len=16, seed=0)
    if stop is not None:
        batches = Breaking(batches, stop)
    return fit(
        config,
        toy_loss,
        {"w": jax.random.normal(jax.random.key(0), (VOCAB, VOCAB))},
        batches,
        valid_batches(toy_examples(23), batch_size=config.batch_size, seq_len=16),
        folder,
        name="toy",
        metadata={"kind": "policy"},
        mesh=make_mesh({"data": devices}),
    )


class Breaking:
    """Batches that end with an error after so many."""

    def __init__(self, batches, count):
        self.batches, self.left = batches, count
        self.get_state, self.set_state = batches.get_state, batches.set_state

    def __next__(self):
        if not self.left:
            raise RuntimeError("broken off")
        self.left -= 1
        return next(self.batches)


def assert_same_run(found, want):
    assert found.tokens_seen == want.tokens_seen, "padding was counted"
    assert found.train_loss == pytest.approx(want.train_loss, abs=1e-5)
    assert found.valid_loss == pytest.approx(want.valid_loss, abs=1e-5)
    assert found.valid_metrics["accuracy"] == pytest.approx(want.valid_metrics["accuracy"])
    np.testing.assert_allclose(found.params["w"], want.params["w"], atol=1e-5)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return {
        parts: toy_fit(tmp_path_factory.mktemp(f"alone{parts}"), 1, dataclasses.replace(TOY, accumulate=parts))
        for parts in (1, 2)
    }


@eight
@pytest.mark.parametrize(("devices", "accumulate"), [*((count, 1) for count in COUNTS), (3, 2), (6, 2)])
def test_a_run_on_any_number_of_devices_ends_like_one_on_one(tmp_path, alone, devices, accumulate):
    """Six steps with dropout, and validation of 23 rows in batches of 8."""
    found = toy_fit(tmp_path, devices, dataclasses.replace(TOY, accumulate=accumulate))
    assert_same_run(found, alone[accumulate])
    assert len(found.params["w"].sharding.device_set) <= min(devices, TOY.batch_size // accumulate)


@eight
@pytest.mark.parametrize(("first", "then"), [(8, 3), (3, 5), (1, 7), (6, 1)])
def test_a_run_goes_on_with_another_number_of_devices(tmp_path, alone, first, then):
    with pytest.raises(RuntimeError, match="broken off"):
        toy_fit(tmp_path, first, stop=5)
    resumed = toy_fit(tmp_path, then)
    assert_same_run(resumed, alone[1])
    params, _ = load_params(tmp_path / "best")
    np.testing.assert_allclose(params["w"], alone[1].params["w"], atol=1e-5)
    assert len(resumed.params["w"].sharding.device_set) == micro_batch_share(TOY, then).devices
