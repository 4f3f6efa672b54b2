"""The main job from questions to report, as a user runs it: whole, killed again and again, and shared out."""

import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import duckdb
import pandas
import polars
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from tests.machine import alone, common, compiled_once
from ttcjax.eval.report.report import TIMING_KEYS
from ttcjax.pipeline import run

ROOT = pathlib.Path(__file__).parents[2]
SMALL = """
    --data.num-train 700 --data.num-valid 35 --data.num-test 35 --data.families residue --data.check-lines False
    --model.d-model 32 --model.num-layers 2 --model.num-heads 2 --model.num-kv-heads 2 --model.head-dim 16
    --model.d-ff 96
    --policy.accumulate 1 --prm.train.accumulate 1 --revision.train.accumulate 1 --orm.train.accumulate 1
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
    --larger.enabled True --larger.model.d-model 48 --larger.model.num-layers 2 --larger.model.num-heads 2
    --larger.model.num-kv-heads 2 --larger.model.head-dim 24 --larger.model.d-ff 96
    --chains.budgets 1 2 4 --chains.answers 4 --chains.chains 2 --chains.refine 2 --chains.shard-questions 5
"""

SIGNS_OF_WORK = (
    "policy.partial/metrics.jsonl",
    "labels.partial/shard-00000.parquet",
    "bank.partial/shard-00000.parquet",
    "revision.partial/offline/metrics.jsonl",
    "revision.partial/chains/shard-00000.parquet",
    "orm.partial/history/metrics.jsonl",
)
"""A run is killed up to half a second after it has left one of these: the work of stages that train once, train several
times, write shards, or do both. The others run the same loops. Searches, scores and chains are killed as parts of a
sweep, below."""


FOLDERS_OF_ROWS = ("bank", "search", "labels")
EVALUATION = ("bank", "rescore", "search", "chains")


def command(workdir, name="run", *flags):
    code = "import sys; from ttcjax.cli import main; sys.exit(main(sys.argv[1:]))"
    config = ROOT / "configs" / "procmath_full.py"
    return [sys.executable, "-c", code, name, str(config), *flags, "--workdir", str(workdir), *SMALL.split()]


def results(workdir):
    summary = json.loads((workdir / "summary.json").read_text())
    return {key: value for key, value in summary.items() if key not in TIMING_KEYS}


def rows(workdir):
    """Every row of the evaluation but for its time, by file."""
    found = {}
    for path in sorted(path for stage in EVALUATION for path in (workdir / stage).glob("*.parquet")):
        table = pq.read_table(path)
        kept = [name for name in table.column_names if name != "seconds"]
        found[str(path.relative_to(workdir))] = table.select(kept).to_pylist()
    return found


def shards_of(workdir):
    stages = [f"{stage}{ending}" for stage in EVALUATION for ending in ("", ".partial")]
    return sum(len(list((workdir / stage).glob("*.parquet"))) for stage in stages)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A folder that the workers of pytest-xdist have in common."""
    return common(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def env(shared):
    # No batch of any stage divides by three devices.
    return compiled_once(shared) | {"JAX_NUM_CPU_DEVICES": "3"}


@pytest.fixture(scope="module")
def whole(shared, env):
    """The workdir of a run that nothing disturbed; the first worker that needs it makes it."""
    with alone(shared, "whole") as workdir:
        if not (workdir / "summary.json").exists():
            done = subprocess.run(command(workdir), env=env, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
    return workdir


@pytest.fixture
def trained(whole, tmp_path):
    """A workdir with the trained models of that run, and nothing evaluated."""
    workdir = tmp_path / "trained"
    left = {*EVALUATION, "report", "summary.json"}
    shutil.copytree(whole, workdir, ignore=lambda at, names: left & set(names) if pathlib.Path(at) == whole else ())
    return workdir


@pytest.mark.slow
@pytest.mark.e2e
@pytest.mark.timeout(900)
def test_every_stage_lists_what_it_wrote_and_a_loss_of_any_is_noticed(whole, tmp_path):
    workdir = tmp_path / "copy"
    shutil.copytree(whole, workdir)
    for path in (workdir / "stages").glob("*.json"):
        stage, own = workdir / path.stem, set(json.loads(path.read_text())["files"])
        assert own, f"{path.stem} lists no files"
        models = {str(model.parent.relative_to(stage)) for model in stage.rglob("best/metadata.json")}
        assert all(f"{model}/metadata.json" in own for model in models), f"{path.stem} has models that it does not list"
    for gone in ("orm/history/best/params", "larger/best/metadata.json", "report/index.html", "summary.json"):
        lost = workdir / gone
        shutil.rmtree(lost) if lost.is_dir() else lost.unlink()
    damaged = {name for name, state, _ in run.states(workdir) if state.startswith("damaged")}
    assert damaged == {"orm", "larger", "report"}


@pytest.mark.long
@pytest.mark.e2e
@pytest.mark.timeout(900)
def test_a_run_killed_in_trainings_and_shards_ends_like_one_left_alone(tmp_path, env, whole):
    rng = random.Random(0)
    for number, sign in enumerate(SIGNS_OF_WORK):
        process = subprocess.Popen(
            command(tmp_path / "killed"), env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and not list((tmp_path / "killed").glob(sign)):
            time.sleep(0.01)
        time.sleep(rng.random() / 2)
        assert process.poll() is None, f"the run was over before {sign} was seen"
        # Asked to end, and killed, in turns.
        process.send_signal(signal.SIGKILL if number % 2 else signal.SIGTERM)
        assert process.wait() == (-signal.SIGKILL if number % 2 else 143), f"stopped at {sign}"
    last = subprocess.run(command(tmp_path / "killed"), env=env, capture_output=True, text=True)
    assert last.returncode == 0, last.stderr
    assert results(tmp_path / "killed") == results(whole), "a resumed run found other numbers"


READERS = {
    "pandas": lambda folder: pandas.read_parquet(folder),
    "polars": lambda folder: polars.read_parquet(f"{folder}/").to_pandas(),
    "duckdb": lambda folder: duckdb.read_parquet(f"{folder}/*.parquet").df(),
    "pyarrow": lambda folder: pyarrow.dataset.dataset(folder).to_table().to_pandas(),
}


@pytest.mark.slow
@pytest.mark.e2e
@pytest.mark.timeout(900)
@pytest.mark.parametrize("reader", READERS)
def test_folders_of_rows_open_as_tables_with_the_report_s_numbers(whole, reader):
    summary = json.loads((whole / "summary.json").read_text())
    made = {stage: json.loads((whole / "stages" / f"{stage}.json").read_text())["result"] for stage in FOLDERS_OF_ROWS}
    tables = {stage: READERS[reader](str(whole / stage)) for stage in FOLDERS_OF_ROWS}
    accuracy = tables["bank"].groupby("question").correct.mean()
    assert len(accuracy) == summary["questions"]
    assert accuracy.mean() == pytest.approx(summary["sections"]["policy"]["pass_at_1"], abs=5e-7), (
        "the report writes six decimals"
    )
    for stage, table in tables.items():
        counted = made[stage]["solutions"]
        print(f"{reader}: {stage} has {len(table)} rows, the run counted {counted}")
        assert len(table) == counted, stage


KILLS = int(os.environ.get("TTCJAX_TEST_KILLS", "10"))
"""How often a sweep is killed; at most as often as it has shards."""
STOPS = int(os.environ.get("TTCJAX_TEST_STOPS", "0"))
"""At how many moments a run is stopped; each takes as long as a run and a half, and finding the moments one more."""


@pytest.mark.long
@pytest.mark.e2e
@pytest.mark.timeout(900 + 300 * STOPS)
@pytest.mark.skipif(not STOPS, reason="TTCJAX_TEST_STOPS=40 takes half an hour; every stage is stopped once above")
def test_sigterm_at_any_moment_is_obeyed_and_the_same_command_goes_on(tmp_path, env, whole):
    """The status is 143; or the signal's own, before the program could handle it, which shells call 143 too."""
    begin = time.monotonic()
    subprocess.run(command(tmp_path / "timed"), env=env, capture_output=True, check=True)
    took = time.monotonic() - begin  # with programs from the cache, unlike the first run
    rng = random.Random(int(os.environ.get("TTCJAX_TEST_SEED", "1")))
    ends = []
    for number in range(STOPS):
        # In the order of a low-discrepancy sequence, so that few moments are spread over the run as well.
        moment = took * (((number + rng.random()) * 0.6180339887) % 1)
        workdir = tmp_path / f"stopped-{number}"
        process = subprocess.Popen(
            command(workdir), env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=120)
        told = err.splitlines()[-1:]
        again = subprocess.run(command(workdir), env=env, capture_output=True, text=True)
        same = again.returncode == 0 and results(workdir) == results(whole) and rows(workdir) == rows(whole)
        ends.append((round(moment, 1), process.returncode, told, again.returncode, same))
        print(*ends[-1], flush=True)
        shutil.rmtree(workdir)
    stopped = [end for end in ends if end[1] != 0]
    assert len(stopped) > 0.8 * STOPS, f"most runs were over before their moment: {ends}"
    assert {status for _, status, *_ in stopped} <= {143, -signal.SIGTERM}, ends
    lines = {tuple(told) for _, status, told, *_ in stopped if status == 143}
    assert lines == {("ttcjax: stopped by SIGTERM; run the same command again to go on",)}, ends
    assert all(same for *_, same in ends), f"a run that was stopped ended otherwise than one left alone: {ends}"


@pytest.mark.long
@pytest.mark.e2e
@pytest.mark.timeout(900)
def test_a_sweep_killed_again_and_again_on_other_devices_ends_like_one_left_alone(env, whole, trained):
    """Three devices and five take turns: by the same programs not a token, score or log-probability differs."""
    every = shards_of(whole)
    assert every == 28, "seven shards of questions in each of bank, rescore, chains and one search"
    rng = random.Random(0)
    turns = [env, env | {"JAX_NUM_CPU_DEVICES": "5"}]
    for number, shards in enumerate(sorted(rng.sample(range(every), KILLS))):
        process = subprocess.Popen(
            command(trained, "sweep"), env=turns[number % 2], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        # At a random time after so many shards, before the first one or within the last stage too.
        while process.poll() is None and shards_of(trained) < shards:
            time.sleep(0.01)
        time.sleep(rng.random() * (0.3 if shards else 8))
        assert process.poll() is None, f"the sweep was over before {shards} shards were seen"
        process.send_signal(signal.SIGKILL)
        process.wait()
    last = subprocess.run(command(trained, "sweep"), env=turns[1], capture_output=True, text=True)
    assert last.returncode == 0, last.stderr
    assert rows(trained) == rows(whole), "a sweep resumed on other devices found other rows"
    assert results(trained) == results(whole)


@pytest.mark.slow
@pytest.mark.e2e
@pytest.mark.timeout(900)
def test_parts_at_the_same_time_end_like_one_process(env, whole, trained):
    """One of them is killed on the way and started again; nobody writes what another one writes."""

    def start(part):
        arguments = command(trained, "sweep", "--part", f"{part}/2")
        return subprocess.Popen(arguments, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    one, two = start(1), start(2)
    while two.poll() is None and not list(trained.glob("search.partial/*.parquet")):
        time.sleep(0.01)
    two.kill()
    two.communicate()
    two = start(2)
    ends = [(process.communicate(), process.returncode) for process in (one, two)]
    assert [status for _, status in ends] == [0, 0], ends
    waiting = [out for (out, _), _ in ends if "and waits for" in out]
    assert all(f"or `ttcjax sweep {ROOT}/configs/procmath_full.py --workdir {trained}" in line for line in waiting)
    last = subprocess.run(command(trained, "sweep"), env=env, capture_output=True, text=True)
    assert last.returncode == 0, last.stderr
    assert "every number: " in last.stdout
    assert rows(trained) == rows(whole), "parts found other rows"
    assert results(trained) == results(whole)
