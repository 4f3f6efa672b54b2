"""The main job from questions to report, as a user runs it: whole, and killed again and again."""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

from ttcjax.eval.report import TIMING_KEYS

ROOT = pathlib.Path(__file__).parents[1]
SMALL = """
    --data.num-train 700 --data.num-valid 35 --data.num-test 35
    --model.d-model 32 --model.num-layers 2 --model.num-heads 2 --model.num-kv-heads 2 --model.head-dim 16
    --policy.steps 80 --policy.batch-size 16 --policy.checkpoint-every 8 --policy.validate-every 10
    --labels.questions 35 --labels.samples 2 --labels.rollouts 2 --labels.shard-questions 5
    --prm.train.steps 16 --prm.train.batch-size 8 --prm.train.checkpoint-every 5 --prm.train.validate-every 8
    --sweep.samples 4 --sweep.budgets 1 4 --sweep.shard-questions 5 --sweep.bootstrap 200
    --sampler.max-tokens 48
    --revision.enabled True --revision.max-seq-len 256
    --revision.trajectories.questions 300 --revision.trajectories.samples 8
    --revision.trajectories.shard-questions 60 --revision.trajectories.temperature 0.6
    --revision.train.steps 16 --revision.train.batch-size 8
    --revision.train.checkpoint-every 5 --revision.train.validate-every 4 --revision.train.seq-len 256
    --revision.rest-em.chains 4 --revision.rest-em.answers 2 --revision.rest-em.questions 100
    --orm.questions 35 --orm.chains 1 --orm.answers 3 --orm.shard-questions 5 --orm.train.steps 16
    --orm.train.batch-size 8 --orm.train.checkpoint-every 5 --orm.train.validate-every 8 --orm.train.seq-len 256
    --orm.base True
    --larger.enabled True --larger.model.d-model 64 --larger.model.num-layers 2 --larger.model.num-heads 2
    --larger.model.num-kv-heads 2 --larger.model.head-dim 32
    --chains.budgets 1 2 4 --chains.answers 4 --chains.chains 2 --chains.refine 2 --chains.shard-questions 5
"""

SIGNS_OF_WORK = (
    "policy.partial/metrics.jsonl",
    "labels.partial/shard-00000.parquet",
    "prm.partial/metrics.jsonl",
    "trajectories.partial/shard-00000.parquet",
    "revision.partial/offline/metrics.jsonl",
    "revision.partial/chains/shard-00000.parquet",
    "revision.partial/metrics.jsonl",
    "attempts.partial/shard-00000.parquet",
    "orm.partial/history/metrics.jsonl",
    "larger.partial/metrics.jsonl",
    "bank.partial/shard-00000.parquet",
    "rescore.partial/shard-00000.parquet",
    "search.partial/*/shard-00000.parquet",
    "chains.partial/shard-00000.parquet",
)
"""A run is killed up to half a second after it has left one of these, each the work of another stage."""


def command(workdir):
    code = "import sys; from ttcjax.cli import main; sys.exit(main(sys.argv[1:]))"
    config = ROOT / "configs" / "procmath_tiny.py"
    return [sys.executable, "-c", code, "run", str(config), "--workdir", str(workdir), *SMALL.split()]


def environment(tmp_path):
    # Compiling anew at every start would be most of the work.
    return os.environ | {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "jax"), "JAX_NUM_CPU_DEVICES": "2"}


def results(workdir):
    summary = json.loads((workdir / "summary.json").read_text())
    return {key: value for key, value in summary.items() if key not in TIMING_KEYS}


@pytest.mark.slow
@pytest.mark.e2e
@pytest.mark.timeout(900)
def test_a_run_killed_in_every_stage_ends_like_one_left_alone(tmp_path):
    env = environment(tmp_path)
    whole = subprocess.run(command(tmp_path / "whole"), env=env, capture_output=True, text=True)
    assert whole.returncode == 0, whole.stderr

    rng = random.Random(0)
    for sign in SIGNS_OF_WORK:
        process = subprocess.Popen(
            command(tmp_path / "killed"), env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and not list((tmp_path / "killed").glob(sign)):
            time.sleep(0.01)
        time.sleep(rng.random() / 2)
        assert process.poll() is None, f"the run was over before {sign} was seen"
        process.send_signal(signal.SIGKILL)
        process.wait()
    last = subprocess.run(command(tmp_path / "killed"), env=env, capture_output=True, text=True)
    assert last.returncode == 0, last.stderr
    assert results(tmp_path / "killed") == results(tmp_path / "whole"), "a resumed run found other numbers"
