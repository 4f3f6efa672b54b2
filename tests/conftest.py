"""What every test runs under: eight virtual CPU devices, strict promotion, shapes and types checked.

`TTCJAX_TEST_PLATFORM=tpu` (or `cuda`) runs the tests on an accelerator instead.
"""

import os
import pathlib

PLATFORM = os.environ.get("TTCJAX_TEST_PLATFORM", "cpu")
CACHE = pathlib.Path(__file__).parents[1] / ".cache" / "jax"

# In the environment, so that the processes that tests start have them too.
os.environ["JAX_PLATFORMS"] = PLATFORM
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # libtpu would ask the cloud which machine this is
os.environ.setdefault("MPLBACKEND", "agg")

import jax
from jaxtyping import install_import_hook

if PLATFORM == "cpu":
    jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Before any test imports the package: its annotations are checked from here on. An int passes for a float.
install_import_hook("ttcjax", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")
