"""What a machine must have for a test."""

from __future__ import annotations

import jax
import pytest


def need_devices(count: int) -> None:
    """Skip the test that calls this where there are fewer devices; `TTCJAX_TEST_DEVICES` sets how many there are."""
    if count > jax.device_count():
        pytest.skip(f"needs {count} devices, and there are {jax.device_count()}")
