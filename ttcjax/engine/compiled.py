"""Compiled programs that can be listed: what was compiled, for which shapes, how long it took, what it needs."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import Mesh, PartitionSpec

from ttcjax import parallel
from ttcjax.engine.programs import Prompts


@dataclass(frozen=True)
class Compilation:
    """One program compiled for one set of shapes."""

    name: str
    """Its purpose, with the settings that are fixed in it."""
    prompts: tuple[int, int]
    """Questions a device, and slots of each prompt: the bucket."""
    seconds: float
    """Tracing and compiling, or reading from the compilation cache."""
    temp_bytes: int
    """A device's memory for intermediate results, as the compiler plans it."""
    argument_bytes: int
    """A device's memory for parameters and prompts."""


class Program:
    """A data-parallel function that compiles itself ahead of its first call with arguments of new shapes.

    So a compilation is seen and timed apart from the run, and what the compiler leaves of freed memory is given
    back before the run takes its own.
    """

    def __init__(
        self,
        name: str,
        fn: Callable[..., Any],
        mesh: Mesh,
        split: tuple[bool, ...],
        on_compiled: Callable[[Compilation], None],
    ):
        """Wrap a function.

        Args:
            name: What it does, for the list of compilations.
            fn: Takes parameters, prompts and other arguments; sees one device's share.
            mesh: The devices.
            split: Which arguments are cut by question; the others are copied.
            on_compiled: Told of every compilation.
        """
        self._name = name
        self._fn = fn
        self._mesh = mesh
        self._specs = tuple(PartitionSpec("data") if cut else PartitionSpec() for cut in split)
        self._on_compiled = on_compiled
        self._ready: dict[Any, Any] = {}

    def __call__(self, *args: Any) -> Any:
        """Run, compiling first where these shapes are new."""
        # Leaves, not trees: what JAX puts in the place of arrays while it compiles need not suit a struct's types.
        leaves = [tuple(jax.tree.leaves(arg)) for arg in args]
        shapes = tuple((leaf.shape, leaf.dtype) for arg in leaves for leaf in arg)
        if shapes not in self._ready:
            self._ready[shapes] = self._compile(args, leaves)
        return self._ready[shapes](*leaves)

    def _compile(self, args: tuple[Any, ...], leaves: list[tuple[Any, ...]]) -> Any:
        trees = [jax.tree.structure(arg) for arg in args]

        def fn(*leaves: tuple[Any, ...]) -> Any:
            return self._fn(*(jax.tree.unflatten(tree, held) for tree, held in zip(trees, leaves, strict=True)))

        begin = time.perf_counter()
        jitted = parallel.data_parallel(fn, self._mesh, in_specs=self._specs, out_specs=PartitionSpec("data"))
        compiled = jitted.lower(*leaves).compile()
        seconds = time.perf_counter() - begin
        memory = compiled.memory_analysis()
        prompts = next(arg for arg in args if isinstance(arg, Prompts))
        questions, slots = prompts.prefix.shape
        self._on_compiled(
            Compilation(
                name=self._name,
                prompts=(questions // self._mesh.size, slots),
                seconds=seconds,
                temp_bytes=getattr(memory, "temp_size_in_bytes", 0),
                argument_bytes=getattr(memory, "argument_size_in_bytes", 0),
            )
        )
        if jax.default_backend() == "cpu":
            _release_freed_memory()
        return compiled


class Programs:
    """Programs of an engine, each compiled once for every set of shapes."""

    def __init__(self, mesh: Mesh):
        self.mesh = mesh
        self.compilations: list[Compilation] = []
        """Every program compiled so far, oldest first."""
        self._ready: dict[Any, Program] = {}

    def get(self, key: tuple[Any, ...], fn: Callable[..., Any], split: tuple[bool, ...]) -> Program:
        """Return a function as a program; equal keys give the same one.

        Args:
            key: All that is fixed in `fn`: words and strategies first, the plan last.
            fn: As in `Program`.
            split: As in `Program`.
        """
        if key not in self._ready:
            self._ready[key] = Program(_title(key), fn, self.mesh, split, self.compilations.append)
        return self._ready[key]


def _title(key: tuple[Any, ...]) -> str:
    """Return a program's name from its key: what it does, the strategy if it has one, the plan last."""
    plan = key[-1]
    words = [getattr(part, "name", part) for part in key[:-1]]
    return f"{' '.join(words)}, {plan.groups}x{plan.group_rows} rows of {plan.slots}"


def _release_freed_memory() -> None:
    """Give freed memory back to the system, where the C library can: a large compilation frees hundreds of MB."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):  # Not glibc.
        return
