"""Names of tensors in files, the places they have in our tree, and the way from one to the other.

A table is a tuple of (name pattern, path, transform): `{}` in a pattern is the number of a layer, and the path is that
of `ttcjax.model.params.spec`. A table may name more than a model has: what its spec does not hold is not looked for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

Shape = tuple[int, ...]


@runtime_checkable
class Transform(Protocol):
    """The way between a tensor in a file and a parameter of ours, whose shape has no layer axis."""

    def stored(self, shape: Shape) -> Shape:
        """Return the shape in the file of a parameter of this shape."""
        ...

    def read(self, array: np.ndarray, shape: Shape, dtype: Any) -> np.ndarray:
        """Return the parameter of a tensor, of a type of numbers and in C order."""
        ...

    def write(self, array: np.ndarray) -> np.ndarray:
        """Return the tensor of a parameter, in C order."""
        ...


_BLOCK = 256


def _turned(array: np.ndarray, dtype: Any) -> np.ndarray:
    """Return a transposed copy; in blocks it takes a tenth of the time, since whole lines of memory are used."""
    out = np.empty(array.shape[::-1], dtype)
    for i in range(0, len(array), _BLOCK):
        out[:, i : i + _BLOCK] = array[i : i + _BLOCK].astype(dtype, copy=False).T
    return out


@dataclass(frozen=True)
class Table:
    """A parameter as it is: an embedding table, or the scales of a norm."""

    def stored(self, shape: Shape) -> Shape:
        return shape

    def read(self, array: np.ndarray, shape: Shape, dtype: Any) -> np.ndarray:
        return np.ascontiguousarray(array.reshape(shape), dtype)

    def write(self, array: np.ndarray) -> np.ndarray:
        return array


@dataclass(frozen=True)
class Vector:
    """A bias, in files without an axis of heads."""

    def stored(self, shape: Shape) -> Shape:
        return (math.prod(shape),)

    def read(self, array: np.ndarray, shape: Shape, dtype: Any) -> np.ndarray:
        return np.ascontiguousarray(array.reshape(shape), dtype)

    def write(self, array: np.ndarray) -> np.ndarray:
        return array.reshape(-1)


@dataclass(frozen=True)
class Matrix:
    """A projection, in files `[outputs, inputs]`, ours with the inputs first and heads as an axis of their own."""

    inputs: int = 1
    """Axes of ours that are inputs: two of attention's output, heads and head size."""

    def stored(self, shape: Shape) -> Shape:
        return math.prod(shape[self.inputs :]), math.prod(shape[: self.inputs])

    def read(self, array: np.ndarray, shape: Shape, dtype: Any) -> np.ndarray:
        return _turned(array, dtype).reshape(shape)

    def write(self, array: np.ndarray) -> np.ndarray:
        return _turned(array.reshape((math.prod(array.shape[: self.inputs]), -1)), array.dtype)


@dataclass(frozen=True)
class Interleaved:
    """Queries or keys of a GGUF file of the Llama family, in which the two numbers that rotate together are neighbours.

    Ours, as in Hugging Face checkpoints, are half a head apart.
    """

    matrix: bool = True
    """A projection `[heads * size, inputs]`, or its bias."""

    def stored(self, shape: Shape) -> Shape:
        return Matrix().stored(shape) if self.matrix else Vector().stored(shape)

    def read(self, array: np.ndarray, shape: Shape, dtype: Any) -> np.ndarray:
        heads, size = shape[-2:]
        pairs = array.reshape((heads, size // 2, 2, -1))
        halves = np.swapaxes(pairs, 1, 2).reshape(array.shape)
        return (Matrix() if self.matrix else Vector()).read(halves, shape, dtype)

    def write(self, array: np.ndarray) -> np.ndarray:
        raise NotImplementedError("GGUF files are read, not written")


@dataclass(frozen=True)
class AroundOne:
    """Scales of a norm that a GGUF file holds with the 1 that Gemma adds to them."""

    def stored(self, shape: Shape) -> Shape:
        return shape

    def read(self, array: np.ndarray, shape: Shape, dtype: Any) -> np.ndarray:
        return np.asarray(array - np.asarray(1, array.dtype), dtype).reshape(shape)

    def write(self, array: np.ndarray) -> np.ndarray:
        raise NotImplementedError("GGUF files are read, not written")


Rule = tuple[str, str, Transform]
TABLE, VECTOR, MATRIX = Table(), Vector(), Matrix()

PROJECTIONS: tuple[Rule, ...] = (
    ("model.embed_tokens.weight", "embed", TABLE),
    ("model.norm.weight", "final_norm", TABLE),
    ("lm_head.weight", "unembed", MATRIX),
    ("model.layers.{}.input_layernorm.weight", "layers/attention/norm", TABLE),
    ("model.layers.{}.self_attn.q_proj.weight", "layers/attention/q", MATRIX),
    ("model.layers.{}.self_attn.k_proj.weight", "layers/attention/k", MATRIX),
    ("model.layers.{}.self_attn.v_proj.weight", "layers/attention/v", MATRIX),
    ("model.layers.{}.self_attn.o_proj.weight", "layers/attention/out", Matrix(inputs=2)),
    ("model.layers.{}.mlp.gate_proj.weight", "layers/mlp/gate", MATRIX),
    ("model.layers.{}.mlp.up_proj.weight", "layers/mlp/up", MATRIX),
    ("model.layers.{}.mlp.down_proj.weight", "layers/mlp/down", MATRIX),
)
"""What all families have, in the names of Hugging Face checkpoints."""

BIASES: tuple[Rule, ...] = (
    ("model.layers.{}.self_attn.q_proj.bias", "layers/attention/q_bias", VECTOR),
    ("model.layers.{}.self_attn.k_proj.bias", "layers/attention/k_bias", VECTOR),
    ("model.layers.{}.self_attn.v_proj.bias", "layers/attention/v_bias", VECTOR),
    ("model.layers.{}.self_attn.o_proj.bias", "layers/attention/out_bias", VECTOR),
    ("model.layers.{}.mlp.gate_proj.bias", "layers/mlp/gate_bias", VECTOR),
    ("model.layers.{}.mlp.up_proj.bias", "layers/mlp/up_bias", VECTOR),
    ("model.layers.{}.mlp.down_proj.bias", "layers/mlp/down_bias", VECTOR),
)
QK_NORMS: tuple[Rule, ...] = (
    ("model.layers.{}.self_attn.q_norm.weight", "layers/attention/q_norm", TABLE),
    ("model.layers.{}.self_attn.k_norm.weight", "layers/attention/k_norm", TABLE),
)
TWO_NORMS: tuple[Rule, ...] = (("model.layers.{}.post_attention_layernorm.weight", "layers/mlp/norm", TABLE),)
"""The norm before the MLP where a layer has two: it is called after the attention that it follows."""

FOUR_NORMS: tuple[Rule, ...] = (
    ("model.layers.{}.post_attention_layernorm.weight", "layers/attention/post_norm", TABLE),
    ("model.layers.{}.pre_feedforward_layernorm.weight", "layers/mlp/norm", TABLE),
    ("model.layers.{}.post_feedforward_layernorm.weight", "layers/mlp/post_norm", TABLE),
)
"""The same name where the contributions to the residual stream are normalised too."""


def gguf(*, interleaved: bool = False, around_one: bool = False) -> tuple[Rule, ...]:
    """Return the table of a GGUF file.

    Args:
        interleaved: Queries and keys are stored as `Interleaved` says.
        around_one: Scales of norms are stored as `AroundOne` says.
    """
    rotated, rotated_bias = (Interleaved(), Interleaved(matrix=False)) if interleaved else (MATRIX, VECTOR)
    scale = AroundOne() if around_one else TABLE
    return (
        ("token_embd.weight", "embed", TABLE),
        ("output_norm.weight", "final_norm", scale),
        ("output.weight", "unembed", MATRIX),
        ("blk.{}.attn_norm.weight", "layers/attention/norm", scale),
        ("blk.{}.attn_q.weight", "layers/attention/q", rotated),
        ("blk.{}.attn_k.weight", "layers/attention/k", rotated),
        ("blk.{}.attn_v.weight", "layers/attention/v", MATRIX),
        ("blk.{}.attn_output.weight", "layers/attention/out", Matrix(inputs=2)),
        ("blk.{}.attn_q.bias", "layers/attention/q_bias", rotated_bias),
        ("blk.{}.attn_k.bias", "layers/attention/k_bias", rotated_bias),
        ("blk.{}.attn_v.bias", "layers/attention/v_bias", VECTOR),
        ("blk.{}.attn_output.bias", "layers/attention/out_bias", VECTOR),
        ("blk.{}.attn_q_norm.weight", "layers/attention/q_norm", scale),
        ("blk.{}.attn_k_norm.weight", "layers/attention/k_norm", scale),
        ("blk.{}.post_attention_norm.weight", "layers/attention/post_norm", scale),
        ("blk.{}.ffn_norm.weight", "layers/mlp/norm", scale),
        ("blk.{}.ffn_gate.weight", "layers/mlp/gate", MATRIX),
        ("blk.{}.ffn_up.weight", "layers/mlp/up", MATRIX),
        ("blk.{}.ffn_down.weight", "layers/mlp/down", MATRIX),
        ("blk.{}.ffn_gate.bias", "layers/mlp/gate_bias", VECTOR),
        ("blk.{}.ffn_up.bias", "layers/mlp/up_bias", VECTOR),
        ("blk.{}.ffn_down.bias", "layers/mlp/down_bias", VECTOR),
        ("blk.{}.post_ffw_norm.weight", "layers/mlp/post_norm", scale),
    )
