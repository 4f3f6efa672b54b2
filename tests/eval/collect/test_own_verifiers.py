"""Verifiers from elsewhere judge a bank because a setting names them: real ones, interrupted, changed and lost."""

import dataclasses
import pathlib
import shutil

import numpy as np
import pyarrow.compute as pc
import pytest
from etils import epath

from tests.eval.collect.test_sweep_runs import MADE, config, files, models, scripted  # noqa: F401
from tests.verify.test_token_pair import asking
from ttcjax.config import (
    ChainsConfig,
    ConfigError,
    DataConfig,
    ExperimentConfig,
    ORMConfig,
    SamplerConfig,
    SweepConfig,
    to_dict,
)
from ttcjax.data import loader
from ttcjax.engine.loading import load_engine
from ttcjax.eval.collect import bank, rescore, rescore_chains, revision_chains
from ttcjax.eval.records import sample_rows, verifier_scores
from ttcjax.eval.records.bundle import Records, settings_of
from ttcjax.eval.stats.estimators import step_scores
from ttcjax.pipeline import inputs, stages, sweep
from ttcjax.runtime.checkpoint import save_params
from ttcjax.runtime.errors import UserError
from ttcjax.runtime.parquet import shard_path, write_shard
from ttcjax.search.chains import Answer
from ttcjax.testing import folders
from ttcjax.verify import formats
from ttcjax.verify.aggregate import aggregate
from ttcjax.verify.token_pair import STEP_END, TokenPair

PAIR = TokenPair(40, 90, marks=(STEP_END, 50), at=1)


def save(folder, model, tokenizer, kind="prm"):
    about = {"kind": kind, "model": to_dict(model.config), "tokenizer": tokenizer.fingerprint}
    judge = {} if model.judge is None else {"verifier": formats.describe(model.judge)}
    save_params(epath.Path(folder), model.params, about | judge)
    return epath.Path(folder)


@pytest.fixture
def own(tiny, tmp_path):
    """The folder of a token-pair verifier."""
    return save(tmp_path / "own" / "pair", asking(tiny, PAIR), tiny.tokenizer)


def judged_too(config, *verifiers):  # noqa: F811
    return dataclasses.replace(config.sweep, verifiers=verifiers)


def test_real_verifiers_of_two_kinds_judge_one_bank(tiny, own, config, tmp_path):  # noqa: F811
    """The scores are those that an engine with that verifier gives the bank's texts, and are read by name."""
    few = DataConfig(name="gsm8k", dir=config.data.dir, num_train=20, num_valid=5, num_test=3)
    sampler = SamplerConfig(max_tokens=24, max_step_tokens=6, rows=64, prompt_bucket=64)
    sweep_config = SweepConfig(samples=2, budgets=(1, 2), strategies=("majority",), shard_questions=2)
    given = ExperimentConfig(data=few, sampler=sampler, sweep=sweep_config)
    workdir = epath.Path(tmp_path / "work")
    loader.prepare(given.data, workdir / "data")
    tiny.tokenizer.save(workdir / "data" / "tokenizer.model")
    lengths = {split: np.ones(1, np.int64) for split in loader.SPLITS}  # All fit.
    np.savez(workdir / "data" / loader.LENGTHS_FILE, **lengths)  # type: ignore[arg-type]
    for stage, model in (("policy", tiny.policy), ("prm", tiny.plain_verifier)):
        save(workdir / stage / "best", model, tiny.tokenizer, stage)
        folders.complete(workdir / stage)
    folders.run_stage(bank.STAGE, given, workdir, workdir / "bank")
    folders.complete(workdir / "bank")
    named = (f"again={workdir / 'prm' / 'best'}", f"pair:min={own}")
    given = dataclasses.replace(given, sweep=dataclasses.replace(sweep_config, verifiers=named))
    found = folders.run_stage(rescore.STAGE, given, workdir, workdir / "rescore")
    assert sorted(found["files"]) == [f"{name}-0000{i}.parquet" for name in ("again", "pair") for i in range(2)]
    folders.complete(workdir / "rescore")
    samples = sample_rows.read_folder(workdir / "bank")
    task, splits = loader.askable(given.questions, workdir / "data")
    asked = {e.id: task.prompt(e.question) for e in splits.test[:]}
    told = {}
    for name, verifier in (("again", "prm"), ("pair", own)):
        engine = load_engine(workdir, sampler, verifier=verifier, steps=task.steps)
        told[name] = verifier_scores.judged_by(samples, name, workdir / "rescore")
        for question, prompt in asked.items():
            rows = told[name].filter(pc.field("question") == question).to_pylist()
            solutions = bank.solutions_of(engine, rows)
            [scored] = engine.score([engine.encode_prompt(question, prompt)], [solutions])
            assert [row["step_scores"] for row in rows] == [list(solution.step_scores) for solution in scored]
    assert told["again"]["step_scores"] != told["pair"]["step_scores"]
    assert verifier_scores.of_bank(given)[1:] == (
        verifier_scores.BankVerifier("again", "last", named=True),
        verifier_scores.BankVerifier("pair", "min", named=True),
    )
    # The same solutions as answers of chains, of which the PRM read none.
    given = dataclasses.replace(given, chains=ChainsConfig(budgets=(1, 2), answers=2, chains=1, shard_questions=2))
    engine, examples = load_engine(workdir, sampler), splits.test[:]
    texts = [samples.filter(pc.field("question") == e.id).to_pylist() for e in examples]
    answers = [[[Answer(solution, 0) for solution in bank.solutions_of(engine, rows)]] * 2 for rows in texts]
    answers = [[first, second[:1]] for first, second in answers]
    rows = revision_chains.result_rows(task, examples, {"history": answers}, "revise", 5, 0.0)
    write_shard(shard_path(workdir / "chains", 0), rows, revision_chains.SCHEMA)
    folders.complete(workdir / "chains")
    found = folders.run_stage(rescore_chains.STAGE, given, workdir, workdir / "rescore_chains")
    assert (found["answers"], found["shards"]) == (3 * 3, 2 * 2)
    folders.complete(workdir / "rescore_chains")
    judged = Records(settings_of(given), workdir).answers
    assert judged.drop_columns("scores").equals(revision_chains.read(workdir / "chains").drop_columns("scores"))
    by_name = verifier_scores.of_answers(judged, {"pair": "min"})
    assert list(by_name) == ["pair", "again"]
    for name, how in (("again", "last"), ("pair", "min")):
        scores = dict(
            zip(
                zip(told[name]["question"].to_pylist(), told[name]["sample"].to_pylist(), strict=True),
                aggregate(step_scores(told[name]), how).astype(np.float32),
                strict=True,
            )
        )
        expected = [scores[row["question"], row["place"]] for row in judged.to_pylist()]
        np.testing.assert_array_equal(by_name[name], expected)


def test_an_interrupted_rescore_goes_on_with_what_is_missing(models, own, monkeypatch):  # noqa: F811
    whole = models("whole")
    named = judged_too(whole, f"pair={own}", f"twin={own}")
    sweep.run(dataclasses.replace(whole, sweep=named))
    expected = {name: rows for name, rows in files(whole).items() if name.startswith("rescore/")}
    assert len(expected) == 3 * 3, "three shards of each of base_orm, pair and twin"
    assert len([name for name in files(whole) if name.startswith("rescore_chains/")]) == 2 * 2, "of pair and twin"
    stopped = dataclasses.replace(models("stopped"), sweep=named)
    made, write = [], rescore.write_shard

    def until(count):
        def write_some(path, *rest):
            if len(made) == count:
                raise KeyboardInterrupt
            made.append(path.name)
            write(path, *rest)

        return write_some

    monkeypatch.setattr(rescore, "write_shard", until(4))
    with pytest.raises(KeyboardInterrupt):
        sweep.run(stopped)
    asked = []
    load = rescore.load_engine

    def load_counted(*args, verifier, **rest):
        asked.append(verifier)
        return load(*args, verifier=verifier, **rest)

    monkeypatch.setattr(rescore, "load_engine", load_counted)
    monkeypatch.setattr(rescore, "write_shard", until(-1))
    [cell] = [c for c in sweep.plan(stopped).cells if c.answers == (("pair", 4),)]
    assert (cell.shards, cell.shards_left) == (3, 2)
    assert cell.left.verifier_flops > 0
    assert set(sweep.run(stopped)) == {*MADE, "rescore_chains", "report"}
    assert sorted(made) == sorted(pathlib.Path(name).name for name in expected), "no shard was made twice"
    assert asked == [own] * 4, "pair and twin, of bank and chains; the ORM had judged everything"
    assert {name: rows for name, rows in files(stopped).items() if name.startswith("rescore/")} == expected


def test_another_model_in_a_verifiers_folder_is_noticed(models, own, tiny):  # noqa: F811
    first = models("changed")
    workdir = epath.Path(first.workdir)
    given = dataclasses.replace(first, sweep=judged_too(first, f"pair={own}"))
    sweep.run(given)
    before = inputs.resolved(given, workdir)
    copied = own.parent / "copy"
    shutil.copytree(own, copied)
    moved = dataclasses.replace(first, sweep=judged_too(first, f"pair={copied}"))
    rescored = stages.get_stage("rescore")
    assert stages.fingerprint(rescored, inputs.resolved(moved, workdir)) == stages.fingerprint(rescored, before), (
        "the same model elsewhere"
    )
    own.rmtree()
    assert inputs.resolved(given, workdir) == before, "its scores are there"
    save(own, asking(tiny, dataclasses.replace(PAIR, good=41)), tiny.tokenizer)
    with pytest.raises(UserError, match=r"the verifier pair in .* is not the one that judged the bank: put it back"):
        inputs.resolved(given, workdir)
    keep, anew = (dataclasses.replace(given, changed_inputs=choice) for choice in ("keep", "read"))
    assert inputs.resolved(keep, workdir).sweep == before.sweep
    assert inputs.resolved(anew, workdir).sweep != before.sweep


def test_what_is_no_verifier_is_refused_with_its_place(models, tiny, tmp_path):  # noqa: F811
    given = models("refused")
    policy = save(tmp_path / "a_policy", tiny.policy, tiny.tokenizer, "policy")
    nothing = dataclasses.replace(given, sweep=judged_too(given, f"pair={tmp_path / 'nothing'}"))
    with pytest.raises(UserError, match=r"sweep\.verifiers: .*nothing, of pair, holds no model: name a folder"):
        sweep.run(nothing)
    save(epath.Path(given.workdir) / "policy" / "best", tiny.policy, tiny.tokenizer, "policy")
    with pytest.raises(UserError, match=r"a_policy is a policy and no verifier"):
        load_engine(given.workdir, given.sampler, verifier=policy)


def test_any_of_two_settings_turns_the_stage_on():
    rescored = stages.get_stage("rescore")
    on = (ExperimentConfig(orm=ORMConfig(base=True)), ExperimentConfig(sweep=SweepConfig(verifiers=("a=x",))))
    assert [rescored.wanted(given) for given in (ExperimentConfig(), *on)] == [False, True, True]
    assert rescored.turned_on_by == "orm.base True or --sweep.verifiers (its help says how)"


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (("pair",), "NAME=FOLDER"),
        (("Pair=x",), "NAME=FOLDER"),
        (("pair:best=x",), "AGGREGATE one of last, min, product, mean"),
        (("prm=x",), "called prm, as another one is"),
        (("a=x", "a=y"), "two of the name a"),
    ],
)
def test_a_list_of_verifiers_is_read_with_care(texts, message):
    with pytest.raises(ConfigError, match=message):
        SweepConfig(verifiers=texts)
