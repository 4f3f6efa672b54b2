"""A study of real, tiny models as a user runs it: whole, killed again and again, and shared out."""

import json
import pathlib
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
from etils import epath

from tests.machine import alone, common, compiled_once
from ttcjax.eval.report import summary_file
from ttcjax.eval.report.report import TIMING_KEYS
from ttcjax.eval.stats import draws, seeds

ROOT = pathlib.Path(__file__).parents[2]
SMALL = """
    --data.num-train 400 --data.num-valid 20 --data.num-test 20
    --model.d-model 32 --model.num-layers 1 --model.num-heads 2 --model.num-kv-heads 2 --model.head-dim 16
    --policy.accumulate 1 --policy.steps 60 --policy.batch-size 16 --policy.checkpoint-every 20
    --policy.validate-every 30
    --labels.questions 20 --labels.samples 2 --labels.rollouts 2 --labels.shard-questions 10
    --prm.train.accumulate 1 --prm.train.steps 8 --prm.train.batch-size 8 --prm.train.validate-every 8
    --sweep.samples 4 --sweep.budgets 1 4 --sweep.shard-questions 5 --sweep.bootstrap 200 --sampler.max-tokens 40
    --revision.enabled False --orm.base False --larger.enabled False
"""
EVALUATION = ("bank", "search")


def command(workdir, *flags):
    code = "import sys; from ttcjax.cli import main; sys.exit(main(sys.argv[1:]))"
    config = ROOT / "configs" / "procmath_full.py"
    arguments = ["study", str(config), "--seeds", "2", *flags, "--workdir", str(workdir)]
    return [sys.executable, "-c", code, *arguments, *SMALL.split()]


def results(workdir):
    """The numbers over seeds, but for what took how long."""
    summary = json.loads((workdir / "study.json").read_text())
    kept = {key: value for key, value in summary.items() if key not in TIMING_KEYS}
    return kept | {"seeds": [{k: v for k, v in seed.items() if k != "seconds"} for seed in summary["seeds"]]}


def rows(workdir):
    """Every row of the evaluations but for its time, by file."""
    found = {}
    for path in sorted(path for stage in EVALUATION for path in workdir.glob(f"seed-*/{stage}/*.parquet")):
        table = pq.read_table(path)
        kept = [name for name in table.column_names if name != "seconds"]
        found[str(path.relative_to(workdir))] = table.select(kept).to_pylist()
    return found


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A folder that the workers of pytest-xdist have in common."""
    return common(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def env(shared):
    return compiled_once(shared) | {"JAX_NUM_CPU_DEVICES": "1"}


@pytest.fixture(scope="module")
def whole(shared, env):
    """The workdir of a study that nothing disturbed; the first worker that needs it makes it."""
    with alone(shared, "whole-study") as workdir:
        if not (workdir / "study.json").exists():
            done = subprocess.run(command(workdir), env=env, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            (shared / "whole-study.txt").write_text(done.stdout)
    return workdir


@pytest.mark.long
@pytest.mark.e2e
@pytest.mark.timeout(900)
def test_a_study_reports_over_seeds_and_of_each(whole, shared):
    summary = json.loads((whole / "study.json").read_text())
    own = [json.loads((whole / f"seed-{k}" / "summary.json").read_text()) for k in range(2)]
    cell = summary["sections"]["policy"]["pass_at_1_interval"]
    assert cell["per_seed"] == [one["sections"]["policy"]["pass_at_1"] for one in own]
    assert cell["high"] > 0
    assert cell["mean"] == pytest.approx(np.mean(cell["per_seed"]), abs=1e-6)
    policies = [(whole / f"seed-{k}" / "policy" / "metrics.jsonl").read_text() for k in range(2)]
    assert policies[0] != policies[1], "both seeds trained the same model"
    # Every estimate has its draws, or it would not be known how much of it seeds share.
    drawn = [summary_file.read_run(epath.Path(whole / f"seed-{k}"))[1] for k in range(2)]
    for one, found in zip(own, drawn, strict=True):
        cells = draws.cells(one)
        paths = [path for path, cell in cells if any(cell.get(name) is not None for name in seeds.VALUES)]
        assert len(paths) > 100
        assert not [path for path in paths if path not in found]
    page = (whole / "report" / "index.html").read_text()
    assert "2 seeds: means over them, intervals over seeds and questions" in page
    assert '<section id="seeds">' in page
    lines = (whole / "report" / "seeds.csv").read_text().splitlines()
    assert lines[0] == "number,mean,low,high,se,se_seeds,seed_0,seed_1"
    assert any(line.startswith("accuracy.strategies.majority.4,") for line in lines)
    out = (shared / "whole-study.txt").read_text()
    assert "accuracy in % by seed at N = 4" in out
    assert f"every number: {whole}/study.json" in out
    single = (whole / "seed-0" / "report" / "index.html").read_text()
    assert "One seed: intervals are of questions alone" in single


@pytest.mark.long
@pytest.mark.e2e
@pytest.mark.timeout(900)
def test_a_study_killed_again_and_again_ends_like_one_left_alone(whole, env, tmp_path):
    rng = random.Random(0)
    # Every stage of one run is killed in `test_end_to_end`, and parts share a study of toys in `test_study`.
    signs = ("seed-0/bank.partial/*.parquet", "seed-1/prm.partial")
    for number, sign in enumerate(signs):
        process = subprocess.Popen(
            command(tmp_path / "killed"), env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and not list((tmp_path / "killed").glob(sign)):
            time.sleep(0.01)
        time.sleep(rng.random() / 5)
        assert process.poll() is None, f"the study was over before {sign} was seen"
        process.send_signal(signal.SIGTERM if number % 2 else signal.SIGKILL)
        assert process.wait() == (143 if number % 2 else -signal.SIGKILL), f"stopped at {sign}"
    last = subprocess.run(command(tmp_path / "killed"), env=env, capture_output=True, text=True)
    assert last.returncode == 0, last.stderr
    assert rows(tmp_path / "killed") == rows(whole)
    assert results(tmp_path / "killed") == results(whole), "a resumed study found other numbers"
