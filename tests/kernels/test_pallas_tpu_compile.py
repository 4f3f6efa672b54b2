"""The TPU kernels at the size of a 2B-parameter model, compiled ahead of time for TPUs that are not there."""

import dataclasses
import importlib.util
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import topologies
from jax.experimental.layout import Format, Layout
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ttcjax import parallel
from ttcjax.config import ModelConfig, SamplerConfig
from ttcjax.engine import programs
from ttcjax.kernels.shared_prefix_attention import api
from ttcjax.model import cache, heads
from ttcjax.model import params as model_params
from ttcjax.text.step_marks import StepMarks

pytestmark = [
    pytest.mark.tpu_compile,
    pytest.mark.usefixtures("no_compilation_cache"),
    pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed"),
]

TOPOLOGIES = {"v5e:2x2": 16e9, "v5p:2x2x1": 95e9, "v6e:2x2": 32e9}
"""With the bytes of HBM of one chip."""
MODEL = ModelConfig(
    vocab_size=128_256,
    num_layers=24,
    d_model=2048,
    num_heads=16,
    num_kv_heads=8,
    head_dim=128,
    d_ff=8192,
    max_seq_len=4096,
    tie_embeddings=False,
    dtype="bfloat16",
)
"""2.0 B parameters."""
N, PROMPT, TOKENS = 64, 2048, 512
SPLIT, COPIED = PartitionSpec("data"), PartitionSpec()


def make_mesh(topology, devices=None):
    chips = topologies.get_topology_desc(topology_name=topology, platform="tpu").devices
    return Mesh(chips[:devices], ("data",), axis_types=(AxisType.Auto,))


def shaped(tree, mesh, spec=COPIED, row_major=False):
    """Return shapes placed on the mesh; matrices and caches in MODEL's dtype, norms as they are."""
    placed = NamedSharding(mesh, spec)

    def leaf(x):
        halved = jnp.issubdtype(x.dtype, jnp.floating) and len(x.shape) > 1
        dtype = jnp.dtype(MODEL.dtype) if halved else x.dtype
        where = Format(Layout(major_to_minor=tuple(range(len(x.shape)))), placed) if row_major else placed
        return jax.ShapeDtypeStruct(x.shape, dtype, sharding=where)

    return jax.tree.map(leaf, tree)


def floats(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.bfloat16)


def ints(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.int32)


def op_shapes(Q, N, C, K, G, E, P, S):
    """Return the shapes of the op's arguments."""
    prefix, suffix = floats(Q, K, P, E), floats(Q * N, K, S, E)
    return floats(Q * N, C, K * G, E), prefix, prefix, ints(Q), suffix, suffix, ints(Q * N, C)


def size(tree):
    return sum(int(np.prod(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def kernel_bytes(text, name):
    """Return the bytes that the calls of a kernel in a compiled program say they move."""
    calls = [line for line in text.splitlines() if "tpu_custom_call" in line and re.search(rf"%{name}\S* = ", line)]
    found = [re.search(r'"cost_estimate":(\{[^}]*\})', line) for line in calls]
    return [int(json.loads(match[1])["bytes_accessed"]) for match in found if match]


def bytes_accessed(compiled):
    return (compiled.cost_analysis() or {})["bytes accessed"]


def layout_changes(text, shape):
    """Count the copies of whole arrays `[...]` of a shape into another order."""
    return len(re.findall(rf"= bf16\[{','.join(map(str, shape))}\]\S* copy\(", text))


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_kernel_reads_each_key_once(topology, capsys):
    """At 64 samples of a prompt of 2,048 tokens, decoding one token and reading a chunk of 32."""
    mesh = make_mesh(topology, 1)
    for C in (1, 32):
        shapes = op_shapes(1, N, C, 8, 2, 128, PROMPT, TOKENS + 1)

        def op(*args):
            return api.shared_prefix_attention(*args, scale=0.1, implementation="pallas_tpu")

        run = parallel.data_parallel(op, mesh, in_specs=(COPIED,) * 7, out_specs=COPIED)
        compiled = run.lower(*(shaped(x, mesh, row_major=len(x.shape) == 4) for x in shapes)).compile()
        said, keys_values = sum(kernel_bytes(compiled.as_text(), "attend")), size(shapes[1:3] + shapes[4:6])
        with capsys.disabled():
            print(
                f"\nattention on {topology}, chunk of {C}: {said / 1e6:.1f} MB, keys and values {keys_values / 1e6:.1f}"
            )
        if C == 1:
            assert said < 1.05 * keys_values, "a key or value is read twice, or the rest is not small beside them"


@pytest.mark.parametrize(
    "shape",
    [
        (1, N, 1, 4, 8, 64, PROMPT, TOKENS + 1),
        (2, 16, 1, 16, 1, 256, 96, 97),
        (3, 4, 7, 1, 4, 8, 33, 50),
        (8, 1, 1, 2, 2, 128, 1, 1),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_kernel_compiles_for_any_shape(shape, dtype):
    """Head sizes, groups and slots that are no multiples of anything; windows and soft caps."""
    mesh = make_mesh("v5e:2x2", 1)
    shapes = [x if x.dtype == jnp.int32 else jax.ShapeDtypeStruct(x.shape, dtype) for x in op_shapes(*shape)]

    def op(*args):
        return api.shared_prefix_attention(*args, scale=0.1, soft_cap=30.0, window=70, implementation="pallas_tpu")

    run = parallel.data_parallel(op, mesh, in_specs=(COPIED,) * 7, out_specs=COPIED)
    placed = [jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, COPIED)) for x in shapes]
    compiled = run.lower(*placed).compile()
    assert len(kernel_bytes(compiled.as_text(), "attend")) == 2, "one call for the prefixes and one for the suffixes"


def test_a_decode_loop_moves_no_whole_cache(capsys):
    """Written by `write_suffix` and read in a loop on all devices, the caches stay as they lie."""
    mesh = make_mesh("v5e:2x2")
    q, prefix, _, length, suffix, _, slot = op_shapes(4, N, 1, 8, 2, 128, PROMPT, TOKENS + 1)
    new = floats(4 * N, 1, 8, 128)

    def loop(q, prefix_k, prefix_v, length, slot, new):
        suffix_shape = (N, *suffix.shape[1:])

        def body(carry):
            q, k, v, slot = carry
            k, v = api.write_suffix(k, v, new, new + 1, slot[:, 0])
            q = api.shared_prefix_attention(q, prefix_k, prefix_v, length, k, v, slot, scale=0.1)
            return q, k, v, slot + 1

        def running(carry):
            return (carry[3] < TOKENS).all()

        empty = jnp.zeros(suffix_shape, jnp.bfloat16)
        return jax.lax.while_loop(running, body, (q, empty, empty, slot))[0]

    run = parallel.data_parallel(loop, mesh, in_specs=(SPLIT,) * 6, out_specs=SPLIT)
    text = run.lower(*(shaped(x, mesh, SPLIT) for x in (q, prefix, prefix, length, slot, new))).compile().as_text()
    assert len(kernel_bytes(text, "attend")) == 2, "compiled for a TPU, auto is the kernel"
    assert len(kernel_bytes(text, "write_suffix")) == 1
    assert " conditional(" not in text, "the platform is chosen before the program is compiled"
    changes = layout_changes(text, (N, *suffix.shape[1:]))
    said = sum(kernel_bytes(text, "attend") + kernel_bytes(text, "write_suffix"))
    ideal = (2 * size(prefix) + 2 * size(suffix)) / mesh.size
    with capsys.disabled():
        print(f"\none layer's step on v5e, a chip: {said / 1e6:.1f} MB, keys and values once {ideal / 1e6:.1f}")
    assert changes == 0, "a cache is copied whole in every step"


@pytest.mark.parametrize("C", [1, 20])
def test_write_suffix_takes_donated_caches(C):
    """Arguments and results of a whole program, and of any length: written in place, without room for a copy."""
    mesh = make_mesh("v5e:2x2", 1)
    caches = shaped((floats(N, 8, TOKENS + 1, 128),) * 2, mesh, row_major=True)
    new = (shaped(floats(N, C, 8, 128), mesh),) * 2
    run = jax.jit(
        jax.shard_map(api.write_suffix, mesh=mesh, in_specs=(COPIED,) * 5, out_specs=COPIED, check_vma=False),
        donate_argnums=(0, 1),
        out_shardings=tuple(x.format for x in caches),
    )
    compiled = run.lower(*caches, *new, shaped(ints(N), mesh)).compile()
    memory = compiled.memory_analysis()
    assert memory is not None
    assert len(kernel_bytes(compiled.as_text(), "write_suffix")) == 1
    assert memory.temp_size_in_bytes < size(caches[0]) / 4


def decode_step(model, mesh):
    """Compile one token of N rows: `cache.extend` and the vocabulary head, caches in row-major order."""
    params = shaped(jax.eval_shape(model_params.unstack_layers, model_params.abstract(model)), mesh)
    layers = model.num_layers
    prefix = (floats(1, model.num_kv_heads, PROMPT, model.head_dim),) * layers
    suffix = (floats(N, model.num_kv_heads, TOKENS + 1, model.head_dim),) * layers
    prefix, suffix = (tuple(shaped(x, mesh, row_major=True) for x in pair) for pair in ((prefix,) * 2, (suffix,) * 2))

    def step(params, tokens, start, length, prefix, suffix):
        caches = (
            cache.PrefixCache(k=prefix[0], v=prefix[1], length_Q=length),
            cache.SuffixCache(k=suffix[0], v=suffix[1]),
        )
        hidden, suffix = cache.extend(params, tokens, start, *caches, model)
        return heads.logits(params, hidden[:, 0], model), (suffix.k, suffix.v)

    run = jax.jit(
        jax.shard_map(step, mesh=mesh, in_specs=(COPIED,) * 6, out_specs=COPIED, check_vma=False),
        donate_argnums=5,
        out_shardings=(NamedSharding(mesh, COPIED), jax.tree.map(lambda x: x.format, suffix)),
        # What is prefetched into VMEM counts as read, written and read again, so there is to be no room for it.
        compiler_options={"xla_tpu_scoped_vmem_limit_kib": "122880"},
    )
    lowered = run.lower(params, *(shaped(x, mesh) for x in (ints(N, 1), ints(N), ints(1))), prefix, suffix)
    return lowered.compile(), size(params), size((prefix, suffix))


@pytest.mark.slow
def test_bytes_of_a_decode_step(capsys):
    """Against weights and caches read once, the embedding table whole in both.

    What the number does not show: the kernel skips slots that no row uses.
    """
    model, mesh = dataclasses.replace(MODEL, num_layers=2), make_mesh("v5e:2x2", 1)
    compiled, weights, caches = decode_step(model, mesh)
    accessed, text = bytes_accessed(compiled), compiled.as_text()
    said = sum(kernel_bytes(text, "attend"))
    with capsys.disabled():
        print(
            f"\na step of {N} rows, {model.num_layers} layers, v5e: {accessed / 1e6:.0f} MB; ideal "
            f"{(weights + caches) / 1e6:.0f} = weights {weights / 1e6:.0f} + keys and values {caches / 1e6:.0f}; "
            f"attention kernels {said / 1e6:.0f}"
        )
    assert said < 1.05 * caches, "the kernels read more than keys and values once"
    assert layout_changes(text, (N, model.num_kv_heads, TOKENS + 1, model.head_dim)) == 0
    assert accessed < 1.15 * (weights + caches), "beside weights and caches there should be little"


@pytest.mark.long
def test_sampling_a_2b_model(capsys):
    """The whole program: prefill, the decode loop with the kernel in it, and continuous batching.

    Two of its layers are compiled. Of temporary memory all of them take twelve times as much at most, since some of it
    is had once.
    """
    topology, layers = "v5e:2x2", 2
    model, mesh = dataclasses.replace(MODEL, num_layers=layers), make_mesh(topology)
    sampler = SamplerConfig(rows=N, waves=2, max_tokens=TOKENS)
    marks = StepMarks.of_ids((2,), (4, 14))
    plan = programs.Plan(model, sampler, marks, N, TOKENS + 1, sampler.rows // N, N)
    Q = sampler.waves * mesh.size

    def fn(params, prompts, seed):
        return jax.tree.leaves(programs.sample(params, programs.Prompts(*prompts), seed, plan=plan))

    numbers = jax.ShapeDtypeStruct((Q,), jnp.uint32)
    prompts = (ints(Q, PROMPT), ints(Q), ints(Q), ints(Q), numbers, numbers, ints(Q))
    params = shaped(jax.eval_shape(model_params.unstack_layers, model_params.abstract(model)), mesh)
    run = parallel.data_parallel(fn, mesh, in_specs=(COPIED, SPLIT, COPIED), out_specs=SPLIT)
    seed = shaped(jax.ShapeDtypeStruct((), jnp.uint32), mesh)
    compiled = run.lower(params, shaped(prompts, mesh, SPLIT), seed).compile()
    memory, text = compiled.memory_analysis(), compiled.as_text()
    sizes = {kind: getattr(memory, f"{kind}_size_in_bytes") for kind in ("argument", "output", "temp")}
    sizes["argument"] += size(shaped(model_params.abstract(MODEL), mesh)) - size(params)
    sizes["temp"] *= MODEL.num_layers // layers
    changes = layout_changes(text, (N, model.num_kv_heads, TOKENS + 1, model.head_dim))
    with capsys.disabled():
        print(
            f"\nsampling, {model_params.count(model_params.abstract(MODEL)) / 1e9:.2f} B parameters, on {topology}, "
            "GB a chip at most: "
            + ", ".join(f"{k} {v / 1e9:.2f}" for k, v in sizes.items())
            + f"; whole caches copied in a step: {changes}"
        )
    assert len(kernel_bytes(text, "attend")) >= 2 * layers, "every layer attends through the kernel"
    assert changes == 0, "a cache is copied whole for every token"
    assert sum(sizes.values()) < TOPOLOGIES[topology]
