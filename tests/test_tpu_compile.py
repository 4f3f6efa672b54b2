"""The demo's programs compile for a TPU slice and fit its memory, checked without one."""

import dataclasses
import functools
import importlib.util
import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ttcjax import parallel
from ttcjax.engine import programs
from ttcjax.model import params as model_params
from ttcjax.search import ops
from ttcjax.search.strategies.beam import Beam
from ttcjax.text.step_marks import StepMarks
from ttcjax.train.loop import init_state, make_train_step
from ttcjax.train.models.policy import make_loss
from ttcjax.verify.value_head import ValueHead

pytestmark = [
    pytest.mark.tpu_compile,
    pytest.mark.usefixtures("no_compilation_cache"),
    pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed"),
]

MEMORY = 16 * 2**30
"""Bytes of one TPU v5e chip."""
PROMPT, N = 64, 16


@pytest.fixture(scope="module")
def mesh():
    topology = topologies.get_topology_desc(topology_name="v5e:2x2", platform="tpu")
    return Mesh(topology.devices, ("data",), axis_types=(AxisType.Auto,))


@pytest.fixture(scope="module")
def config():
    return runpy.run_path(str(Path(__file__).parents[1] / "configs" / "procmath_full.py"))["get_config"]()


@pytest.fixture(scope="module")
def plan(config):
    shape, judge = model(config), ValueHead(config.prm.likelihood)
    marks = StepMarks.of_ids((2,), (4, 14))
    slots = config.sampler.max_tokens + 1
    groups = config.sampler.rows // N
    return programs.Plan(shape, config.sampler, marks, N, slots, groups, N, shape, judge, max_steps=slots)


def model(config):
    return dataclasses.replace(config.model, vocab_size=config.tokenizer.vocab_size)


def shaped(tree, mesh, *axes):
    """Return shapes placed on the mesh, their leading axis over the given mesh axes."""
    sharding = NamedSharding(mesh, PartitionSpec(*axes))
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)


def weights(config, heads, mesh):
    """Return the shapes of a model's parameters as an engine holds them."""
    stacked = model_params.abstract(config, heads)
    return shaped(jax.eval_shape(model_params.unstack_layers, stacked), mesh)


def prompt_shapes(mesh, config):
    """Return the shapes of the fields of `programs.Prompts`, which itself holds arrays only."""
    Q = config.sampler.waves * config.sampler.rows // N * mesh.size
    shapes = [
        ((Q, PROMPT), jnp.int32),
        *(((Q,), dtype) for dtype in (jnp.int32, jnp.int32, jnp.int32, jnp.uint32, jnp.uint32, jnp.int32)),
    ]
    return shaped(tuple(jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in shapes), mesh, "data")


def memory_of(name, lowered, capsys):
    """Compile; print and return the bytes that one chip needs."""
    memory = lowered.compile().memory_analysis()
    sizes = {kind: getattr(memory, f"{kind}_size_in_bytes") for kind in ("argument", "output", "temp")}
    with capsys.disabled():
        print(f"\n{name} on v5e:2x2, MB a chip: " + ", ".join(f"{k} {v / 1e6:.2f}" for k, v in sizes.items()))
    assert sizes["temp"] > 0, "the compiler says nothing of memory"
    return sum(sizes.values())


def test_train_step(mesh, config, capsys):
    # In one piece: the demo cuts its batches for a CPU's caches, and on eight chips no memory would be worth a word.
    policy, train = model(config), dataclasses.replace(config.policy, accumulate=1)
    params = model_params.abstract(policy)
    state = jax.eval_shape(functools.partial(init_state, train), params)
    tokens = jax.ShapeDtypeStruct((train.batch_size, train.seq_len), jnp.int32)
    weights = jax.ShapeDtypeStruct(tokens.shape, jnp.float32)
    batch = {**dict.fromkeys(("tokens", "targets", "segment_ids", "positions"), tokens), "weights": weights}
    step = make_train_step(train, make_loss(policy), mesh)
    lowered = step.lower(shaped(state, mesh), shaped(batch, mesh, "data"))
    assert memory_of("train step", lowered, capsys) < MEMORY


def test_sampling(mesh, config, plan, capsys):
    def fn(params, prompts, seed):
        return jax.tree.leaves(programs.sample(params, programs.Prompts(*prompts), seed, plan=plan))

    split, copied = PartitionSpec("data"), PartitionSpec()
    run = parallel.data_parallel(fn, mesh, in_specs=(copied, split, copied), out_specs=split)
    params = weights(plan.policy, ("vocab",), mesh)
    number = shaped(jax.ShapeDtypeStruct((), jnp.uint32), mesh)
    lowered = run.lower(params, prompt_shapes(mesh, config), number)
    assert memory_of("sampling", lowered, capsys) < MEMORY


def test_beam_search(mesh, config, plan, capsys):
    def fn(policy, verifier, prompts, seed):
        prompts = programs.Prompts(*prompts)
        return jax.tree.leaves(ops.program(policy, verifier, prompts, seed, plan=plan, strategy=Beam(N, 4)))

    split, copied = PartitionSpec("data"), PartitionSpec()
    run = parallel.data_parallel(fn, mesh, in_specs=(copied, copied, split, copied), out_specs=split)
    policy = weights(plan.policy, ("vocab",), mesh)
    verifier = weights(plan.verifier, plan.judge.heads, mesh)
    number = shaped(jax.ShapeDtypeStruct((), jnp.uint32), mesh)
    lowered = run.lower(policy, verifier, prompt_shapes(mesh, config), number)
    assert memory_of("beam search", lowered, capsys) < MEMORY
