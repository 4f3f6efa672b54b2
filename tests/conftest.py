"""What every test runs under: eight virtual CPU devices, strict promotion, shapes and types checked.

`TTCJAX_TEST_PLATFORM=tpu` (or `cuda`) runs the tests on an accelerator instead, `TTCJAX_TEST_DEVICES=1` on as many
CPU devices; what needs more is skipped. On a CPU XLA compiles fast rather than well, unless `XLA_FLAGS` is set.
"""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

PLATFORM = os.environ.get("TTCJAX_TEST_PLATFORM", "cpu")
DEVICES = int(os.environ.get("TTCJAX_TEST_DEVICES", "8"))
CACHE = pathlib.Path(__file__).parents[1] / ".cache" / "jax"
# Two thirds of a test run on tiny models would go into the optimiser. `make test-small` runs with all of it.
QUICK_COMPILATION = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true --xla_cpu_use_fusion_emitters=false"
)

# In the environment, so that the processes that tests start have them too.
os.environ["JAX_PLATFORMS"] = PLATFORM
if PLATFORM == "cpu" and not os.environ.get("XLA_FLAGS"):
    os.environ["XLA_FLAGS"] = QUICK_COMPILATION
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")  # files of tests share many programs
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # libtpu would ask the cloud which machine this is
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # several test processes compile for TPUs at once
os.environ.setdefault("MPLBACKEND", "agg")

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache
from jaxtyping import install_import_hook

if PLATFORM == "cpu":
    jax.config.update("jax_num_cpu_devices", DEVICES)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Before any test imports the package: its annotations are checked from here on. An int passes for a float.
install_import_hook("ttcjax", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")


SOLUTION = 24
"""Tokens of the longest solution of the tiny models."""


class Errors(NamedTuple):
    """Largest differences that rounding explains: of a token's log-probability, of a solution's, of a step's score."""

    token: float
    solution: float
    score: float


@dataclasses.dataclass(frozen=True)
class TinyModels:
    """Random models with a real tokenizer, and questions to ask them."""

    tokenizer: Any
    policy: Any
    verifier: Any
    """Its value head follows likelihoods."""
    plain_verifier: Any
    questions: list[Any]

    @functools.cached_property
    def step_ends(self) -> frozenset[int]:
        """Tokens that end a line or a solution."""
        ids = range(self.tokenizer.vocab_size)
        return frozenset(i for i in ids if "\n" in self.tokenizer.decode([i])) | {self.tokenizer.eos_id}

    @functools.cached_property
    def errors(self) -> "Errors":
        """How far two computations of these models may lie apart, by `rounding.noise` on rows of random tokens."""
        from tests.rounding import noise
        from ttcjax.model import heads, transformer

        def hidden(params: Any, tokens: jax.Array, config: Any) -> jax.Array:
            positions = np.broadcast_to(np.arange(tokens.shape[1], dtype=np.int32), tokens.shape)
            return transformer.forward(params, tokens, jnp.asarray(positions), config)

        @functools.partial(jax.jit, static_argnums=2)
        def logprobs(params: Any, tokens: jax.Array, config: Any) -> jax.Array:
            return heads.token_logprob(params, hidden(params, tokens, config)[:, :-1], tokens[:, 1:], config)

        @functools.partial(jax.jit, static_argnums=(2, 3))
        def scores(params: Any, tokens: jax.Array, config: Any, judge: Any) -> jax.Array:
            least = None
            if judge.likelihood:
                least = jax.lax.cummin(logprobs(params, tokens, config)[:, -SOLUTION:], axis=1)
            values = judge.value(params, hidden(params, tokens, config)[:, -SOLUTION:], least)
            return jax.nn.sigmoid(values)

        config = self.policy.config
        tokens = np.random.default_rng(0).integers(4, config.vocab_size, (8, config.max_seq_len))
        tokens = jnp.asarray(tokens, jnp.int32)
        length = config.max_seq_len  # No sum is longer: of slots in attention, of the MLP's 64.
        of_one = functools.partial(logprobs, tokens=tokens, config=config)
        return Errors(
            token=noise(of_one, self.policy.params, length),
            solution=noise(lambda params: of_one(params)[:, -SOLUTION:].sum(axis=1), self.policy.params, length),
            score=max(
                noise(lambda p, m=model: scores(p, tokens, m.config, m.judge), model.params, length)
                for model in (self.verifier, self.plain_verifier)
            ),
        )

    def engine(self, devices: int = 1, verifier: Any = None, **sampler: Any) -> Any:
        """Return an engine; prompts are at least 5 and, in one bucket of 64, at most 64 tokens."""
        from tests.machine import need_devices
        from ttcjax.config import SamplerConfig
        from ttcjax.engine.engine import Engine
        from ttcjax.parallel import make_mesh

        need_devices(devices)
        settings = {"max_tokens": SOLUTION, "max_step_tokens": 6, "verifier_chunk": 4, "rows": 64, "prompt_bucket": 64}
        settings |= sampler
        mesh = make_mesh({"data": devices}, jax.devices()[:devices])
        return Engine(self.policy, self.tokenizer, SamplerConfig(**settings), verifier or self.verifier, mesh)

    def prompts(self, engine: Any, start: int = 0, count: int = 9) -> list[Any]:
        """Return the prompts of `count` questions."""
        from ttcjax.data.procmath import TASK

        chosen = self.questions[start : start + count]
        return [engine.encode_prompt(example.id, TASK.prompt(example.question)) for example in chosen]


@pytest.fixture(scope="session")
def tiny() -> TinyModels:
    """A policy and verifiers of two layers, weights drawn at random, that often end steps and solutions."""
    return make_tiny()


def make_tiny() -> TinyModels:
    """Return what `tiny` holds, in processes that tests start too."""
    from ttcjax.config import ModelConfig, TokenizerConfig
    from ttcjax.data import procmath
    from ttcjax.engine.engine import Model
    from ttcjax.model.params import spec
    from ttcjax.text import tokenizer as tokenizers
    from ttcjax.verify.value_head import ValueHead

    examples = list(procmath.generate("train", 300, seed=0))
    texts = (f"{example.question}\n{example.solution}" for example in examples)
    tokenizer = tokenizers.train(texts, TokenizerConfig(vocab_size=512, number_pieces=10))

    def draw(config: ModelConfig, heads: tuple[Any, ...], seed: int) -> Any:
        rng = np.random.default_rng(seed)
        centre = {"normal": 0.0, "zeros": 0.0, "ones": 1.0, "norm_scale": 1.0}

        def leaf(s: Any) -> jax.Array:
            spread = s.fan_in**-0.5 if s.init == "normal" else 0.2
            return jnp.asarray(centre[s.init] + spread * rng.normal(size=s.shape), s.dtype)

        return jax.tree.map(leaf, spec(config, heads))

    config = ModelConfig(
        vocab_size=tokenizer.vocab_size,
        num_layers=2,
        d_model=32,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
        d_ff=64,
        max_seq_len=96,
        tie_embeddings=False,
    )
    policy = draw(config, ("vocab",), seed=0)
    # Every hidden state is large in its first dimension, and there the step ends are likely.
    policy["embed"] = policy["embed"].at[:, 0].add(4.0)
    newline = tokenizer.encode("\n")[0]
    first = np.zeros(config.vocab_size, np.float32)
    first[newline], first[tokenizer.eos_id] = 1.3, 0.4
    policy["unembed"] = (2.0 * policy["unembed"]).at[0].set(first)
    narrow = dataclasses.replace(config, d_model=24, num_layers=1)
    follower = draw(narrow, ("value", "likelihood"), seed=1)
    # Log-probabilities here are near -10: brought to where the sigmoid is steep.
    follower["value"] |= {"likelihood": jnp.float32(0.3), "b": jnp.float32(3.0)}
    return TinyModels(
        tokenizer=tokenizer,
        policy=Model(policy, config),
        verifier=Model(follower, narrow, judge=ValueHead(likelihood=True)),
        plain_verifier=Model(draw(narrow, ("value",), seed=1), narrow, judge=ValueHead()),
        questions=[e for e in examples if len(tokenizer.encode(e.question)) < 60],
    )


@pytest.fixture(scope="module")
def engine(tiny: TinyModels) -> Any:
    """One device, default settings; shared by the tests of a module, so its programs compile once."""
    return tiny.engine()


@pytest.fixture(scope="module")
def prompts(tiny: TinyModels, engine: Any) -> list[Any]:
    """Prompts of nine questions."""
    return tiny.prompts(engine)


@pytest.fixture
def no_compilation_cache() -> Iterator[None]:
    """For programs of TPUs that are not there: taken from the persistent cache, they could not be loaded."""
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    yield
    jax.config.update("jax_enable_compilation_cache", True)
    compilation_cache.reset_cache()
