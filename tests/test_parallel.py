"""Meshes, data parallelism and sharding rules, on eight virtual devices."""

import importlib.util
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from ttcjax import parallel

P = PartitionSpec
eight = pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices")


@eight
def test_mesh_axes_are_auto_and_minus_one_takes_the_rest():
    mesh = parallel.make_mesh({"data": -1, "model": 2})
    assert dict(mesh.shape) == {"data": 4, "model": 2}
    assert mesh.axis_types == (AxisType.Auto, AxisType.Auto)
    assert parallel.make_mesh({"data": 3}).size == 3, "a mesh may use fewer devices than there are"


@eight
@pytest.mark.parametrize("sizes", [{"data": 9}, {"data": 3, "model": -1}, {"data": -1, "model": -1}, {"data": 0}])
def test_impossible_meshes_are_refused(sizes):
    with pytest.raises(ValueError, match="mesh"):
        parallel.make_mesh(sizes)


@eight
def test_data_parallel_equals_one_device_bit_for_bit():
    def collatz_steps(start_B):
        """Ragged loop lengths: each device must leave its own loop."""

        def body(state):
            value_B, count_B = state
            going_B = value_B != 1
            next_B = jnp.where(value_B % 2 == 0, value_B // 2, 3 * value_B + 1)
            return jnp.where(going_B, next_B, value_B), count_B + going_B.astype(jnp.int32)

        return jax.lax.while_loop(
            lambda state: jnp.any(state[0] != 1), body, (start_B, jnp.zeros(start_B.shape, jnp.int32))
        )[1]

    start = np.arange(1, 65, dtype=np.int32)
    results = [
        parallel.data_parallel(collatz_steps, parallel.make_mesh({"data": n}), in_specs=P("data"), out_specs=P("data"))(
            start
        )
        for n in (1, 8)
    ]
    np.testing.assert_array_equal(results[0], results[1])
    assert results[0][26] == 111, "27 takes 111 steps"


@eight
def test_data_parallel_gradients_are_the_shards_own():
    """Under `pmap` rules the mean over devices is taken by hand; another rule would double it."""
    weight, rows = jnp.float32(3.0), jnp.arange(8.0)

    def gradient(weight, rows_B):
        local = jax.grad(lambda w: jnp.sum(w * rows_B))(weight)
        return jax.lax.psum(local, "data")

    mesh = parallel.make_mesh({"data": 8})
    total = parallel.data_parallel(gradient, mesh, in_specs=(P(), P("data")), out_specs=P())(weight, rows)
    assert total == rows.sum()


def test_donated_argument_is_given_up():
    mesh = parallel.make_mesh({"data": 1})
    step = parallel.data_parallel(lambda x: x + 1, mesh, in_specs=P("data"), out_specs=P("data"), donate_argnums=0)
    x = jax.device_put(jnp.zeros(4), jax.NamedSharding(mesh, P("data")))
    step(x)
    assert x.is_deleted()


def test_partition_spec_follows_the_rules():
    rules = {"batch": ("data", "fsdp"), "heads": "model", "embed": None}
    assert parallel.partition_spec(("batch", None, "heads", "embed"), rules) == P(("data", "fsdp"), None, "model", None)


@pytest.mark.parametrize(
    ("axes", "words"), [(("heads", "ffn"), "'heads' and 'ffn'.*'model'"), (("hads",), "no sharding rule.*'hads'")]
)
def test_rules_that_cannot_hold_are_refused(axes, words):
    with pytest.raises(ValueError, match=words):
        parallel.partition_spec(axes, {"heads": "model", "ffn": "model"})


@eight
def test_named_sharding_splits_the_array():
    mesh = parallel.make_mesh({"data": 4, "model": 2})
    sharding = parallel.named_sharding(("batch", "heads"), mesh, {"batch": "data", "heads": "model"})
    assert sharding.shard_shape((8, 6)) == (2, 3)


def start_jax(*lines: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run lines in a process where no platform is chosen but by `environment`."""
    kept = {name: value for name, value in os.environ.items() if name not in ("JAX_PLATFORMS", "JAX_FORCE_TPU_INIT")}
    script = "\n".join(["import jax", "from ttcjax import parallel", *lines])
    return subprocess.run([sys.executable, "-c", script], env=kept | environment, capture_output=True, text=True)


only_libtpu = pytest.mark.skipif(
    not importlib.util.find_spec("libtpu")
    or importlib.util.find_spec("jax_plugins") is not None
    or parallel._has_tpu_devices(),
    reason="needs libtpu, no TPU and no other accelerator's plugin",
)


@only_libtpu
def test_libtpu_without_a_tpu_is_left_alone():
    done = start_jax("parallel.skip_absent_tpu()", "print(jax.default_backend())")
    assert done.stdout == "cpu\n"
    assert done.stderr == "", "libtpu was started and complained"


@only_libtpu
@pytest.mark.parametrize(
    ("before", "environment"),
    [
        ("parallel._has_tpu_devices = lambda: True", {}),
        ("", {"JAX_PLATFORMS": "tpu,cpu"}),
        ("", {"JAX_FORCE_TPU_INIT": "1"}),
    ],
)
def test_a_tpu_that_is_there_or_asked_for_is_used(before, environment):
    lines = ("wanted = jax.config.jax_platforms", before, "parallel.skip_absent_tpu()")
    done = start_jax(*lines, "print(jax.config.jax_platforms == wanted)", **environment)
    assert done.stdout == "True\n", done.stderr


def test_tpu_chips_are_seen_by_their_device_files(tmp_path):
    (tmp_path / "accel").mkdir()
    (tmp_path / "vfio").mkdir()
    (tmp_path / "vfio" / "vfio").touch()
    assert not parallel._has_tpu_devices(tmp_path), "these are there on hosts without a TPU too"
    (tmp_path / "vfio" / "0").touch()
    assert parallel._has_tpu_devices(tmp_path)
    (tmp_path / "vfio" / "0").unlink()
    (tmp_path / "accel0").touch()
    assert parallel._has_tpu_devices(tmp_path)
