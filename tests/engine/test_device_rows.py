"""Rows are the same, bit for bit, on any number of devices: tokens, texts, log-probabilities and step scores."""

import pathlib
import pickle
import subprocess
import sys

import jax
import numpy as np
import pytest

from tests.searching import candidates
from ttcjax.engine.requests import Begun
from ttcjax.search import registry

SEED = 3
pytestmark = pytest.mark.skipif(jax.device_count() < 8 or jax.default_backend() != "cpu", reason="needs eight CPUs")


ASKED = {"more rows than work at once": (13, 7), "one question": (1, 35), "one sample": (3, 1)}
"""Uneven numbers of questions and samples."""


def sampled(tiny, engine, kinds):
    asked = {kind: ASKED[kind] for kind in kinds}
    return {kind: engine.sample(tiny.prompts(engine, count=count), n, SEED) for kind, (count, n) in asked.items()}


def read(tiny, engine, solutions):
    """Scores, log-probabilities, and rows that go on: of given solutions, so that the inputs are the same."""
    prompts = tiny.prompts(engine, count=len(solutions))
    begun = [[Begun(s.tokens[: len(s.tokens) // 2], i, 1) for i, s in enumerate(row)] for row in solutions]
    return {
        "score": engine.score(prompts, solutions),
        "resume": engine.resume(prompts, begun, SEED, max_tokens=12),
        "logprobs": engine.logprobs(prompts, [[s.tokens for s in row] for row in solutions]),
    }


def searched(tiny, engine, names):
    return {name: candidates(engine, registry.parse(name), tiny.prompts(engine, count=11), SEED) for name in names}


def assert_equal(found, want, devices):
    for name, rows in found.items():
        for row, got in zip(want[name], rows, strict=True):
            for b, a in zip(row, got, strict=True):
                if isinstance(b, np.ndarray):
                    np.testing.assert_array_equal(a, b, err_msg=f"{name} on {devices} devices")
                else:
                    assert a == b, f"{name}: a row differs on {devices} devices"


@pytest.fixture(scope="module")
def alone(tiny):
    return sampled(tiny, tiny.engine(), ASKED)


def test_the_rows_compared_here_say_something(alone):
    rows = [s for group in alone["more rows than work at once"] for s in group]
    assert len({s.tokens for s in rows}) > 0.9 * len(rows)
    assert len({len(s.tokens) for s in rows}) > 5, "rows that end at the same time never change places"


@pytest.mark.parametrize("devices", [3, 8])
def test_samples_are_the_same_on_any_number_of_devices(tiny, alone, devices):
    kinds = ASKED if devices in (3, 8) else list(ASKED)[:1]
    assert_equal(sampled(tiny, tiny.engine(devices=devices), kinds), alone, devices)


@pytest.mark.parametrize("devices", [3, 8])
def test_scores_logprobs_and_resumed_rows_are_the_same_on_any_number_of_devices(tiny, alone, devices):
    given = alone["more rows than work at once"]
    assert_equal(read(tiny, tiny.engine(devices=devices), given), read(tiny, tiny.engine(), given), devices)


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("beam:n=4,width=2", (3, 8)),
        ("lookahead:n=4,width=2,k=1", (5,)),
    ],
)
def test_searches_are_the_same_on_any_number_of_devices(tiny, name, counts):
    want = searched(tiny, tiny.engine(), [name])
    for devices in counts:
        assert_equal(searched(tiny, tiny.engine(devices=devices), [name]), want, devices)


OTHER_PROCESS = """
import pathlib, pickle, sys
sys.path[:0] = sys.argv[1:3]
import conftest, jax
jax.config.update("jax_num_cpu_devices", int(sys.argv[3]))
import test_device_rows
tiny = conftest.make_tiny()
found = test_device_rows.sampled(tiny, tiny.engine(devices=int(sys.argv[3])), list(test_device_rows.ASKED)[:1])
pathlib.Path(sys.argv[4]).write_bytes(pickle.dumps(found))
"""


@pytest.mark.parametrize("devices", [12])
def test_a_process_of_another_number_of_devices_samples_the_same(tiny, alone, tmp_path, devices):
    """The number of a process's devices is that of XLA's threads too."""
    here = pathlib.Path(__file__).parent
    out = tmp_path / "rows"
    arguments = [str(here.parent), str(here), str(devices), str(out)]
    done = subprocess.run([sys.executable, "-c", OTHER_PROCESS, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert_equal(pickle.loads(out.read_bytes()), alone, devices)
