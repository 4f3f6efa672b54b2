"""The memory plan against what the compiler plans, and what the engine does with it."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from ttcjax.config import ModelConfig, SamplerConfig
from ttcjax.engine import capacity, programs
from ttcjax.model import params as model_params
from ttcjax.runtime.errors import UserError
from ttcjax.search import ops
from ttcjax.search.strategies.beam import Beam
from ttcjax.text.step_marks import StepMarks
from ttcjax.verify.value_head import ValueHead

CONFIG = ModelConfig(
    vocab_size=4000, num_layers=3, d_model=128, num_heads=4, num_kv_heads=2, head_dim=32, d_ff=256, max_seq_len=4096
)


def shapes(questions, prompt_slots):
    one = [jnp.int32, jnp.int32, jnp.int32, jnp.uint32, jnp.uint32, jnp.int32]
    rest = [jax.ShapeDtypeStruct((questions,), dtype) for dtype in one]
    return (jax.ShapeDtypeStruct((questions, prompt_slots), jnp.int32), *rest)


@pytest.mark.parametrize(
    ("kind", "questions", "groups", "group_rows", "n", "prompt_slots", "slots"),
    [
        ("sample", 4, 4, 16, 16, 256, 128),
        ("sample", 32, 4, 16, 64, 64, 64),
        ("sample", 1, 1, 64, 64, 1024, 64),
        ("sample", 64, 16, 4, 4, 512, 32),
        ("search", 8, 8, 16, 16, 64, 200),
        ("search", 16, 4, 16, 16, 512, 100),
    ],
)
def test_the_plan_is_above_what_the_compiler_needs_and_not_far(
    kind, questions, groups, group_rows, n, prompt_slots, slots
):
    sampler = SamplerConfig(max_tokens=slots - 1, rows=groups * group_rows)
    shape, marks = (n, slots, groups, group_rows), StepMarks.of_ids((2,), (4,))
    plan = programs.Plan(CONFIG, sampler, marks, *shape, CONFIG, ValueHead(), max_steps=slots)
    policy = jax.eval_shape(model_params.unstack_layers, model_params.abstract(CONFIG, ("vocab",)))
    verifier = jax.eval_shape(model_params.unstack_layers, model_params.abstract(CONFIG, ("value",)))
    prompts, seed = shapes(questions, prompt_slots), jax.ShapeDtypeStruct((), jnp.uint32)
    if kind == "sample":
        weights = capacity.bytes_of(policy)
        lowered = jax.jit(
            lambda p, q, s: jax.tree.leaves(programs.sample(p, programs.Prompts(*q), s, plan=plan))
        ).lower(policy, prompts, seed)
    else:
        weights = capacity.bytes_of(policy) + capacity.bytes_of(verifier)
        lowered = jax.jit(
            lambda p, v, q, s: jax.tree.leaves(
                ops.program(p, v, programs.Prompts(*q), s, plan=plan, strategy=Beam(n, 4))
            )
        ).lower(policy, verifier, prompts, seed)
    used = lowered.compile().memory_analysis()
    assert used is not None, "the compiler says nothing of memory"
    actual = used.argument_size_in_bytes + used.temp_size_in_bytes + used.output_size_in_bytes
    search = kind == "search"
    planned = capacity.plan(
        ((CONFIG, None), *[(CONFIG, ValueHead())] * search),
        weights,
        questions=questions,
        groups=groups,
        rows=plan.rows,
        prompt_slots=prompt_slots,
        slots=slots,
        n=n,
        forks=search,
        read_together=sampler.verifier_chunk if search else 1,
    )
    assert actual <= planned.total, "a batch that was said to fit would not"
    assert planned.total <= 2 * actual, "a batch that fits would be refused or cut"


def test_rows_are_cut_to_what_fits_with_the_same_samples(tiny):
    plain = tiny.engine(max_tokens=24, rows=64)
    prompts = tiny.prompts(plain, count=3)
    small = tiny.engine(max_tokens=24, rows=64, memory=2.4 / 1024)
    assert small.capacity.fit(64, 8, 25).rows < plain.capacity.fit(64, 8, 25).rows
    assert small.capacity.fit(64, 8, 25).memory.total <= 2.4 * 2**20
    found = small.sample(prompts, 8, 0)
    assert [[s.tokens for s in row] for row in found] == [
        [s.tokens for s in row] for row in plain.sample(prompts, 8, 0)
    ]


def test_what_cannot_fit_is_refused_before_anything_runs(tiny):
    engine = tiny.engine(memory=0.5 / 1024)
    with pytest.raises(UserError, match=r"1 row of 24 tokens after a prompt of 64 need .*lower --sampler.max_tokens"):
        engine.sample(tiny.prompts(engine, count=2), 4, 0)
    assert not engine.compilations, "a program was compiled for a batch that cannot fit"


def test_a_verifier_counts_where_it_is_used(tiny):
    engine = tiny.engine()
    assert (
        engine.capacity.fit(64, 4, 25, forks=True).memory.suffixes > 2 * engine.capacity.fit(64, 4, 25).memory.suffixes
    )


def test_a_verifier_that_follows_likelihoods_counts_the_logits_of_all_it_reads():
    models = ((CONFIG, ValueHead(likelihood=True)),)
    size: dict[str, Any] = {"questions": 1, "groups": 1, "rows": 4, "prompt_slots": 32, "slots": 33, "n": 4}
    one, whole = (capacity.plan(models, 0, **size, read_together=t).activations for t in (1, 33))
    assert whole - one > 32 * 4 * 4000 * 4, "32 more tokens of 4 rows have 32 times 4 times 4000 logits more"
