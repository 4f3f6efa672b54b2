"""A sweep of strategies that revise: their rows, what the report makes of them, and who needs the revision model."""

import dataclasses
import pathlib

import numpy as np
import pyarrow.compute as pc
import pytest
from etils import epath

from tests.eval.collect.test_sweep_runs import CONFIG, PARAMS, QUESTIONS
from tests.eval.collect.test_sweep_runs import config as config
from tests.eval.collect.test_sweep_runs import models as models
from tests.eval.collect.test_sweep_runs import scripted as scripted
from ttcjax.config import ConfigError, ORMConfig, RevisionConfig
from ttcjax.data import loader
from ttcjax.eval.collect import searches
from ttcjax.eval.records import measured, sample_rows, trained
from ttcjax.eval.sections.spending import costs
from ttcjax.pipeline import plan, run, stages, sweep
from ttcjax.runtime import records
from ttcjax.runtime.errors import UserError
from ttcjax.runtime.shards import Shard
from ttcjax.runtime.stage import Inputs
from ttcjax.search import registry
from ttcjax.search.context import Context
from ttcjax.search.revision_verifiers import Revising
from ttcjax.search.strategies.refine import Refine
from ttcjax.search.strategies.revise import Revise

NAMES = ("majority", "beam:width=2", "revise", "revise:p=2,select=majority", "revise:s=2", "refine")
SWEEP = dataclasses.replace(CONFIG.sweep, strategies=NAMES, budgets=(1, 4))


def rows_of(config):
    return sample_rows.read_folder(pathlib.Path(config.workdir) / "search")


@pytest.fixture
def whole(models):
    config = models("whole", sweep=SWEEP)
    sweep.run(config)
    return config


@pytest.mark.parametrize(
    ("name", "budget", "want"),
    [
        ("revise", 8, Revise(8, 1)),
        ("revise:p=2", 8, Revise(4, 2)),
        ("revise:p=4", 2, Revise(1, 2)),
        ("revise:s=4", 8, Revise(4, 2)),
        ("revise:s=4,select=best", 2, Revise(2, 1, "best")),
        ("revise:s=3", 6, Revise(3, 2)),
        ("refine", 8, Refine(7)),
        ("refine", 1, Refine(0)),
    ],
)
def test_a_budget_is_a_split(name, budget, want):
    assert registry.for_budget(name, budget) == want
    assert want.cost() == want.rows() == budget
    assert not registry.named(name).is_best_of_n(budget), "the bank has no answer of the revision model"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("revise:s=4,p=2", "must not fix both s and p, of which sweep.budgets gives one: leave one out"),
        ("revise:p=3", "3 chains do not divide a budget of 4: take 3 or 6"),
        ("revise:s=3", "3 answers a chain do not divide a budget of 4: take 3 or 6"),
        ("refine:steps=3", "must not fix steps"),
        ("revise:p=1", "are the same strategy"),
    ],
)
def test_a_sweep_refuses_what_leaves_a_budget_no_split(name, told):
    with pytest.raises(ConfigError, match=told):
        registry.check_for_sweep(["revise", name], (1, 4))


def test_a_sweep_without_a_revision_model_says_how_to_have_one():
    off = dataclasses.replace(CONFIG, revision=RevisionConfig(), sweep=SWEEP)
    with pytest.raises(ConfigError, match=r"'revise' asks for a revision model: .*revision.enabled True"):
        run.prepared(off)


def test_only_a_strategy_that_revises_makes_a_search_wait_for_the_revision_model():
    """Fingerprints of other sweeps stay what they were, whatever becomes of the revision model."""
    plain = dataclasses.replace(CONFIG, sweep=dataclasses.replace(SWEEP, strategies=NAMES[:2]))
    revised = dataclasses.replace(CONFIG, sweep=SWEEP)
    search = stages.get_stage("search")

    def moved(config, **changes):
        return stages.fingerprint(search, config) != stages.fingerprint(search, dataclasses.replace(config, **changes))

    trained_longer = dataclasses.replace(CONFIG.revision, max_answers=5)
    other_verifier = dataclasses.replace(CONFIG.chains, verifier="no_history")
    for changes in ({"revision": trained_longer}, {"chains": other_verifier}):
        assert not moved(plain, **changes)
        assert moved(revised, **changes)
    assert {need.name for need in stages.needs_of(search, plain)} == {"data", "policy", "prm"}
    assert {need.name for need in stages.needs_of(search, revised)} == {"data", "policy", "prm", "revision", "orm"}
    judged = dataclasses.replace(revised, orm=ORMConfig(revisions=False))
    assert "orm" not in {need.name for need in stages.needs_of(search, judged)}
    order = [stage.name for stage in run.wanted_stages(revised)]
    assert order.index("search") > order.index("orm") > order.index("revision")
    order = [stage.name for stage in run.wanted_stages(plain)]
    assert order.index("search") < order.index("revision")


def test_a_sweep_names_the_revision_model_that_it_lacks(models):
    config = models("untrained", sweep=SWEEP)
    (pathlib.Path(config.workdir) / "revision").rename(pathlib.Path(config.workdir) / "elsewhere")
    with pytest.raises(UserError, match=r"a sweep needs revision, which is missing.*ttcjax revision CONFIG"):
        sweep.run(config)


def test_rows_are_those_of_chains_and_do_not_depend_on_shards(models, whole):
    found = rows_of(whole)
    for name in NAMES[2:]:
        for n in SWEEP.budgets:
            cell = found.filter((pc.field("strategy") == name) & (pc.field("n") == n))
            assert cell.num_rows == QUESTIONS * SWEEP.seeds * n
            assert min(cell["tokens"].to_pylist()) > 0
            assert min(cell["verifier_tokens"].to_pylist()) > 0
            assert {len(scores) for scores in cell["step_scores"].to_pylist()} == {2}
    cut = models("cut", sweep=dataclasses.replace(SWEEP, shard_questions=12))
    sweep.run(cut)

    def by_place(table):
        key = ("strategy", "n", "seed", "question", "sample")
        return {tuple(row[k] for k in key): row | {"seconds": 0} for row in table.to_pylist()}

    assert by_place(rows_of(cut)) == by_place(found)


def test_the_report_chooses_as_the_strategies_do(whole):
    """From rows alone: against `Outcome.choices` of the same chains, run again."""
    rows, workdir = rows_of(whole), epath.Path(whole.workdir)
    bank = sample_rows.read_folder(workdir / "bank")
    record = records.read(workdir / "search")
    assert record is not None
    verifier = record["result"]["verifier"]
    assert verifier == "no_history", "what the ORM stage chose"
    found = measured.measure(measured.Rules.of(whole), bank, rows, verifier=verifier)
    assert not found.missing
    task, splits = loader.askable(whole.questions, workdir / "data")
    given = searches.Settings.of(whole)
    session_of = searches.Models(given, Inputs.of(workdir, ("data", "orm")), task).session
    for name in NAMES[2:]:
        right = np.zeros(QUESTIONS)
        strategy = registry.for_budget(name, 4)
        for seed in (whole.sweep.seed + 1, whole.sweep.seed + 2):
            session = session_of(strategy, splits.test[:])
            for q, (example, outcome) in enumerate(
                zip(splits.test, searches.run_strategy(strategy, session, seed), strict=True)
            ):
                place = outcome.choices["own"]
                rule = "best" if name == "refine" else getattr(strategy, "select", "")
                assert place == outcome.choices[rule], "these scores have no ties"
                right[q] += place is not None and task.grade(outcome.answers[place], example.answer)
        ids = [e.id for e in splits.test]
        got = dict(zip(found.samples.questions, found.accuracy[name][4], strict=True))
        assert [got[i] for i in ids] == (right / 2).tolist(), name


def test_costs_are_of_the_revision_model_and_of_what_was_in_view(whole):
    """Against the views themselves, by the rules of `Context`, of the texts in the rows."""
    workdir, rows = epath.Path(whole.workdir), rows_of(whole)
    prompts = trained.prompt_tokens(whole.questions, workdir / "data")
    known = {name: trained.Trained(params=params, tokens_seen=1) for name, params in PARAMS.items()}
    bank = sample_rows.read_folder(workdir / "bank")
    at = {name: dict.fromkeys(SWEEP.budgets, 1.0) for name in NAMES}
    tokenizer, most = loader.tokenizer(workdir / "data"), whole.revision.max_answers
    for restated, room in ((False, 900), (True, 900), (False, 40)):
        view = dataclasses.replace(whole.revision.view, restate=restated)
        revising = dataclasses.replace(Revising.of(whole), view=view)
        by = costs.RevisedBy(revising, "no_history", room)
        found = costs.of_strategies(SWEEP, bank, rows, prompts, known, at, by)
        context = Context(tokenizer, most, restate=restated)
        cell = rows.filter((pc.field("strategy") == "revise:s=2") & (pc.field("n") == 4)).to_pylist()
        seen = 0
        for row in cell:
            if row["sample"] % 2:
                [before] = [
                    r
                    for r in cell
                    if (r["question"], r["seed"]) == (row["question"], row["seed"]) and r["sample"] == row["sample"] - 1
                ]
                tokens = prompts[row["question"]]
                seen += len(context.view((0,) * (tokens - 1), [before["text"]], room - tokens).tokens)
        cost = found["revise:s=2"][4]
        assert cost.context_tokens is not None
        assert cost.context_tokens == pytest.approx(seen / (QUESTIONS * SWEEP.seeds))
        prompt = np.mean(list(prompts.values()))
        read = sum(row["verifier_tokens"] for row in cell) / (QUESTIONS * SWEEP.seeds)
        assert cost.generations == 4
        assert cost.flops == pytest.approx(
            2 * PARAMS["revision"] * (prompt + cost.policy_tokens + cost.context_tokens)
            + 2 * PARAMS["orm/no_history"] * (prompt + read)
        )
        assert found["revise:p=2,select=majority"][4].verifier_tokens == 0, "a vote asks no verifier"


def test_a_plan_counts_chains_and_says_what_is_at_most(models):
    strategies = ("majority", "revise", "adaptive:wave=2")
    config = models("planned", sweep=dataclasses.replace(SWEEP, strategies=strategies))
    cells = {cell.answers[0]: cell for cell in sweep.plan(config).cells if cell.stage == "search"}
    assert set(cells) == {("revise", 1), ("revise", 4), ("adaptive:wave=2", 4)}
    revise, adaptive = cells["revise", 4].whole, cells["adaptive:wave=2", 4].whole
    assert revise.generations == adaptive.generations == 4 * QUESTIONS * SWEEP.seeds
    assert (revise.at_most, adaptive.at_most) == (False, True)
    assert revise.policy_flops == pytest.approx(2 * PARAMS["revision"] * revise.policy_tokens)
    assert revise.verifier_flops == pytest.approx(2 * PARAMS["orm/no_history"] * revise.verifier_tokens)
    lines = plan.lines(sweep.plan(config), "probe")
    told = {line.split()[1] for line in lines if "at most" in line}
    assert told == {"adaptive:wave=2", "all"}, "also the sum"
    assert "at most" in searches.work_of(searches.Settings.of(config), QUESTIONS)
    sweep.run(config)
    assert not sweep.plan(config).left.at_most, "nothing is left"


def test_shards_are_named_by_the_name_that_the_config_has():
    given = searches.Settings.of(dataclasses.replace(CONFIG, sweep=SWEEP))
    every: list[Shard] = searches.shards_of(given, QUESTIONS, {})
    assert {cell for shard in every for cell in shard.cells if "revise-p-2" in cell} == {
        f"revise-p-2_select-majority_n-{n}_seed-{seed}" for n in (1, 4) for seed in (3, 4)
    }
