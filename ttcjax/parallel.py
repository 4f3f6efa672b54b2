"""Meshes, data parallelism over them, and the way from logical axis names to partition specs.

`data_parallel` is what "pmapped" means here: `jax.jit` of `jax.shard_map` over a mesh axis. `jax.pmap`
itself is a wrapper of the same two since jax 0.8.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import math
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ttcjax.runtime import faults

MeshAxes = str | tuple[str, ...] | None
"""Mesh axes that one array dimension is split over: one, several, or none."""


def skip_absent_tpu() -> None:
    """Keep JAX from starting libtpu on a host without a TPU, where it can only fail and fill the terminal.

    libtpu may be there to compile for TPUs ahead of time. Without effect where a platform is chosen
    (`JAX_PLATFORMS`; JAX itself chooses when it sees TPU chips on the bus), where TPU device files or another
    accelerator's plugin are present, or once JAX has started.
    """
    chosen = jax.config.jax_platforms  # pyright: ignore[reportAttributeAccessIssue]
    if chosen is not None or "JAX_FORCE_TPU_INIT" in os.environ:
        return
    plugins = importlib.metadata.entry_points(group="jax_plugins") or importlib.util.find_spec("jax_plugins")
    if importlib.util.find_spec("libtpu") and not plugins and not _has_tpu_devices():
        jax.config.update("jax_platforms", "cpu")


def _has_tpu_devices(dev: pathlib.Path = pathlib.Path("/dev")) -> bool:
    """Return whether the kernel offers TPU chips: accel0, accel1, ..., or from v5 on numbered groups under vfio."""
    return any(dev.glob("accel[0-9]*")) or any(dev.glob("vfio/[0-9]*"))


def use_all_cpu_cores() -> None:
    """Make every core of the host a CPU device, where nothing else has been asked for.

    The loops of sampling and search are many small steps that one XLA device spreads poorly over cores;
    data-parallel, each core runs its own. Without effect on accelerators, or once JAX has started.
    """
    chosen = os.environ.get("JAX_NUM_CPU_DEVICES") or "xla_force_host_platform" in os.environ.get("XLA_FLAGS", "")
    if chosen or jax.config.jax_num_cpu_devices > 0:  # pyright: ignore[reportAttributeAccessIssue]
        return
    try:
        jax.config.update("jax_num_cpu_devices", len(os.sched_getaffinity(0)))
    except RuntimeError:  # The devices are already there.
        return


def all_devices() -> list[Any]:
    """Return the devices of the platform that JAX runs on.

    Raises:
        UserError: The platform that was asked for is not here.
    """
    try:
        return jax.devices()
    except (RuntimeError, AssertionError) as error:
        # JAX's own assertion has no text: a platform's plugin is not installed.
        chosen = str(jax.config.jax_platforms or "")  # pyright: ignore[reportAttributeAccessIssue]
        raise faults.explain(error) or faults.absent_platform(chosen or "chosen by JAX", str(error)[:200]) from error


def process_count() -> int:
    """Return how many processes of this job share the devices."""
    return jax.process_count()


def make_mesh(axis_sizes: Mapping[str, int], devices: Sequence[Any] | None = None) -> Mesh:
    """Return a mesh with the named axes, all of type `Auto`.

    Args:
        axis_sizes: Axis name to number of devices along it, major axis first; one size may be -1 and
            takes all the devices that are left.
        devices: The devices to use, all by default; the first ones where fewer are needed.

    Raises:
        ValueError: The sizes ask for more devices than there are, or -1 does not come out even.
        UserError: As for `all_devices`.
    """
    devices = all_devices() if devices is None else devices
    sizes = dict(axis_sizes)
    open_axes = [name for name, size in sizes.items() if size == -1]
    if len(open_axes) > 1 or any(size < 1 and size != -1 for size in sizes.values()):
        raise ValueError(f"mesh sizes must be positive, at most one of them -1, not {sizes}")
    fixed = math.prod(size for size in sizes.values() if size != -1)
    if open_axes:
        if len(devices) % fixed:
            raise ValueError(f"{len(devices)} devices cannot be split into mesh {sizes}")
        sizes[open_axes[0]] = len(devices) // fixed
    needed = math.prod(sizes.values())
    if needed > len(devices):
        raise ValueError(f"mesh {sizes} needs {needed} devices and there are {len(devices)}")
    return jax.make_mesh(
        tuple(sizes.values()), tuple(sizes), axis_types=(AxisType.Auto,) * len(sizes), devices=devices[:needed]
    )


@dataclass(frozen=True)
class Share:
    """Rows dealt out to devices in shares of equal size."""

    rows: int
    devices: int
    """Devices that get a share; there may be more."""
    each: int
    """Rows of a share, padding included."""

    @property
    def padding(self) -> int:
        """Rows over all shares that stand for nothing."""
        return self.devices * self.each - self.rows


def share(rows: int, devices: int, *, all_devices: bool = False) -> Share:
    """Deal out rows to devices: the smallest shares that hold them all, then only as many devices as those need.

    Args:
        rows: Any number of them from 1.
        devices: How many there are, from 1.
        all_devices: Use all of them, as the processes of one job must, each of which has some.

    Raises:
        ValueError: There is no row or no device.
    """
    if rows < 1 or devices < 1:
        raise ValueError(f"rows and devices must be at least 1, not {rows} and {devices}")
    each = -(-rows // devices)
    return Share(rows, devices if all_devices else -(-rows // each), each)


def first_devices(mesh: Mesh, count: int) -> Mesh:
    """Return the mesh, on axis `data`, of the first `count` devices of another one, in its order."""
    # Not `make_mesh`, which wants devices that fill a box of a TPU slice.
    return Mesh(mesh.devices.flatten()[:count], ("data",), axis_types=(AxisType.Auto,))


def data_parallel(
    fn: Callable[..., Any], mesh: Mesh, *, in_specs: Any, out_specs: Any, donate_argnums: int | Sequence[int] = ()
) -> Callable[..., Any]:
    """Compile `fn` to run on every device of `mesh` at once, each on its own shard.

    Each device leaves the `lax.while_loop`s of `fn` by itself as long as their bodies hold no
    collectives. As under `pmap`, a gradient taken inside `fn` is the shard's own: reduce it with
    `lax.pmean` or `lax.psum`, and give `PartitionSpec()` as output spec only to what is equal on all
    devices.

    Args:
        fn: Sees shards; a dimension split over n devices has 1/n of its global size.
        mesh: The devices.
        in_specs: A `PartitionSpec`, or a prefix tree of them, for each argument.
        out_specs: The same for the result.
        donate_argnums: Arguments whose buffers the result may reuse.
    """
    # The check of replication types refuses loops whose carry starts as a constant and Pallas calls.
    shards = jax.shard_map(fn, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)
    return jax.jit(shards, donate_argnums=donate_argnums)


def partition_spec(logical_axes: Sequence[str | None], rules: Mapping[str, MeshAxes]) -> PartitionSpec:
    """Return the partition spec of an array from the logical names of its dimensions.

    Args:
        logical_axes: One name a dimension; `None` for a dimension that is never split.
        rules: Logical name to mesh axes.

    Raises:
        ValueError: A name has no rule, or two dimensions would be split over the same mesh axis.
    """
    taken: dict[str, str] = {}
    entries: list[MeshAxes] = []
    for name in logical_axes:
        if name is None:
            entries.append(None)
            continue
        if name not in rules:
            raise ValueError(f"no sharding rule for logical axis {name!r}; rules: {', '.join(rules)}")
        axes = rules[name]
        for axis in (axes,) if isinstance(axes, str) else axes or ():
            if axis in taken:
                raise ValueError(
                    f"logical axes {taken[axis]!r} and {name!r} of {tuple(logical_axes)} both map to mesh axis {axis!r}"
                )
            taken[axis] = name
        entries.append(axes)
    return PartitionSpec(*entries)


def named_sharding(logical_axes: Sequence[str | None], mesh: Mesh, rules: Mapping[str, MeshAxes]) -> NamedSharding:
    """Return the sharding of an array on `mesh`; see `partition_spec`."""
    return NamedSharding(mesh, partition_spec(logical_axes, rules))
