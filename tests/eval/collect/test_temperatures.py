"""Strategies at temperatures of their own: what the bank holds for them, and what validation questions choose."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest
from etils import epath

from tests.eval.collect.test_sweep_runs import (
    QUESTIONS as ASKED,
)
from tests.eval.collect.test_sweep_runs import (
    config,
    files,
    models,
    parts,
    scripted,
)
from tests.eval.report.test_report import (
    BUDGETS,
    CONFIG,
    QUESTIONS,
    greedy_rows,
    make_row,
    naive_accuracy,
    summarise,
    write,
)
from tests.eval.report.test_report import run as report_of
from ttcjax.config import ConfigError, ExperimentConfig, ORMConfig, SweepConfig
from ttcjax.data import loader
from ttcjax.engine.engine import Engine
from ttcjax.eval.collect import bank, temperatures, tune, validated
from ttcjax.eval.collect.searches import search_cells
from ttcjax.eval.collect.temperatures import Grid
from ttcjax.eval.records import sample_rows
from ttcjax.eval.records.measured import Rules, measure
from ttcjax.eval.records.trained import Trained
from ttcjax.eval.sections.spending import costs as ledger
from ttcjax.pipeline import inputs, stages, sweep
from ttcjax.runtime import parquet
from ttcjax.runtime.errors import UserError
from ttcjax.search import registry
from ttcjax.testing import folders

__all__ = ["config", "models", "scripted"]

SAMPLER = CONFIG.sampler.temperature


def swept(base: ExperimentConfig, *strategies: str, **changes) -> ExperimentConfig:
    return dataclasses.replace(base, sweep=dataclasses.replace(base.sweep, strategies=strategies, **changes))


# ---- names


@pytest.mark.parametrize("name", ["majority", "best_of_n:select=weighted", "beam:width=4", "lookahead:width=4,k=1"])
def test_a_temperature_is_put_into_a_name_and_read_out_of_it(name):
    cold = registry.at_temperature(name, 0.6)
    assert registry.parse(cold, n=16).temperature == 0.6
    assert registry.at_temperature(cold, 1.0) == registry.at_temperature(name, 1.0)
    assert registry.at_temperature(cold, 0.6) == cold
    written = f"{name}{',' if ':' in name else ':'}temperature=validated"
    assert registry.named(written).with_temperature(0.6) == registry.at_temperature(written, 0.6) == cold
    assert registry.named(name).with_temperature(0.6) == name, "a strategy without a temperature has the sampler's"
    assert Grid.of(swept(CONFIG, name)).possible(name, 4, {}) == (SAMPLER,)
    assert Grid.of(swept(CONFIG, cold)).possible(cold, 4, {}) == (0.6,)
    tuned = Grid.of(swept(CONFIG, written, temperatures=(0.3, 1.2)))
    assert tuned.possible(written, 4, {(written, 4): 1.2}) == (1.2,)
    assert tuned.possible(written, 4, None) == (0.3, 1.2)


def test_a_sweep_refuses_two_names_of_one_temperature():
    for first, second in (
        ("majority", "majority:temperature=1"),
        ("beam:width=4,temperature=0.60", "beam:temperature=.6"),
    ):
        with pytest.raises(ConfigError, match="are the same strategy"):
            registry.check_for_sweep([first, second], temperature=1.0)
    registry.check_for_sweep(
        [
            "majority",
            "majority:temperature=0.6",
            "majority:temperature=validated",
            "beam",
            "beam:temperature=validated",
        ],
        temperature=1.0,
    )
    with pytest.raises(ConfigError, match="are the same strategy"):
        registry.check_for_sweep(["beam:width=4,temperature=validated", "beam:temperature=validated"])
    with pytest.raises(ConfigError, match="must be a number above 0"):
        registry.check_for_sweep(["majority:temperature=hot"])


def test_what_is_validated_needs_candidates_and_these_need_it():
    for strategies, candidates in ((("majority",), (0.6, 1.0)), (("majority:temperature=validated",), ())):
        with pytest.raises(ConfigError, match="give both or neither"):
            SweepConfig(strategies=strategies, temperatures=candidates)
    for wrong in ((0.0,), (0.6, 0.6), (-1.0,)):
        with pytest.raises(ConfigError, match=r"sweep\.temperatures"):
            SweepConfig(strategies=("majority:temperature=validated",), temperatures=wrong)


# ---- the bank


def samples_by_temperature(config: ExperimentConfig, won: temperatures.Chosen | None) -> dict[float, int]:
    return bank.Settings.of(config).samples.at(won)


def seed_at(config: ExperimentConfig, temperature: float) -> int:
    return temperatures.stream(config.sweep.seed, temperature, config.sampler.temperature)


def test_the_bank_holds_what_strategies_ask_for():
    """All that judge, at another temperature; for the best-of-N of a search as many as its budgets below the width."""
    assert samples_by_temperature(CONFIG, {}) == {SAMPLER: 8}
    named = swept(CONFIG, "majority:temperature=0.6", "beam:width=4,temperature=0.7", "beam:width=sqrt,temperature=0.8")
    named = dataclasses.replace(named, sweep=dataclasses.replace(named.sweep, samples=40))
    assert samples_by_temperature(named, {}) == {SAMPLER: 40, 0.6: 20, 0.7: 2, 0.8: 2}
    same = swept(CONFIG, "majority:temperature=1.0")
    assert samples_by_temperature(same, {}) == {SAMPLER: 8}, "the sampler's temperature by another name"
    tuned = swept(CONFIG, "beam:width=4,temperature=validated", temperatures=(0.6, 1.0))
    won = {("beam:width=4,temperature=validated", n): 0.6 if n == 2 else 1.0 for n in BUDGETS}
    assert samples_by_temperature(tuned, won) == {SAMPLER: 8, 0.6: 2}
    assert samples_by_temperature(tuned, None) == {SAMPLER: 8, 0.6: 2}, "what it may come to need, as well"


def test_seeds_of_temperatures_are_their_own_and_fit_their_column():
    named = [seed_at(CONFIG, t) for t in (SAMPLER, 0.6, 0.7, 1.2)]
    assert named[0] == CONFIG.sweep.seed
    assert len(set(named)) == 4
    assert all(0 <= seed < 2**31 for seed in named)
    other = dataclasses.replace(CONFIG, sweep=dataclasses.replace(CONFIG.sweep, seed=7))
    assert seed_at(other, 0.6) != seed_at(CONFIG, 0.6)


def untimed(folder):
    """The rows of a bank without their times, by what tells them apart."""
    return {
        (row["temperature"], row["question"], row["sample"]): {k: v for k, v in row.items() if k != "seconds"}
        for row in sample_rows.read_folder(folder).to_pylist()
    }


def test_a_bank_of_two_temperatures_is_two_banks_made_apart(models, tiny, monkeypatch):
    """With real models, row by row; and each is what an engine of that temperature draws with that seed."""

    def load_engine(workdir, sampler, **_):
        return tiny.engine(max_tokens=sampler.max_tokens, temperature=sampler.temperature)

    monkeypatch.setattr(bank, "load_engine", load_engine)

    def made(name, *strategies, **changes):
        given = models(name, **changes)
        given = swept(given, "majority", *strategies, budgets=(1, 2), samples=2, **({"seed": 7} if changes else {}))
        if changes:  # What a bank of that temperature alone would have had as its seed.
            given = swept(given, *given.sweep.strategies, seed=seed_at(cold_one, 0.6))
        folder = epath.Path(given.workdir) / "bank"
        found = folders.run_stage(bank.STAGE, given, given.workdir, folder)
        folders.complete(folder)
        assert found["solutions"] == found["sampled"] == len(untimed(folder))
        return given, untimed(folder), sorted(path.name for path in folder.iterdir())

    cold, warm = "majority:temperature=0.6", "best_of_n:select=weighted,temperature=1.4"
    cold_one, only_cold, _ = made("cold", cold)
    _, only_warm, _ = made("warm", warm)
    _, plain, names = made("plain")
    both_config, both, all_names = made("both", cold, warm)
    assert both == plain | only_cold | only_warm
    assert len(both) == 3 * len(plain) == 3 * 2 * ASKED
    assert [name for name in all_names if name.startswith("shard-")] == names, "the sampler's rows lie where they did"
    sampler = dataclasses.replace(cold_one.sampler, temperature=0.6)
    _, apart, _ = made("apart", sampler=sampler)
    drawn = ("text", "tokens", "finished", "answer", "seed")
    for key, row in apart.items():
        assert {name: row[name] for name in drawn} == {name: both[key][name] for name in drawn}
    folder = str(pathlib.Path(both_config.workdir) / "bank")
    monkeypatch.setattr(Engine, "sample", lambda *_, **__: pytest.fail("a finished bank is to be read"))
    taken_config = swept(models("taken"), *both_config.sweep.strategies, budgets=(1, 2), samples=2, samples_from=folder)
    taken = folders.run_stage(bank.STAGE, taken_config, taken_config.workdir, epath.Path(taken_config.workdir) / "bank")
    assert taken["sampled"] == 0
    folders.complete(epath.Path(taken_config.workdir) / "bank")
    for key, row in untimed(epath.Path(taken_config.workdir) / "bank").items():
        assert {name: row[name] for name in drawn} == {name: both[key][name] for name in drawn}
    texts = [[both[t, q, i]["text"] for _, q, i in plain] for t in (1.0, 0.6, 1.4)]
    assert texts[0] != texts[1] != texts[2]


def test_searches_run_at_their_own_temperature_and_share_runs_that_are_the_same():
    given = swept(CONFIG, "beam:width=4", "beam:width=4,temperature=1", "beam:width=4,temperature=0.6", budgets=(2, 8))
    cells = search_cells(Grid.of(given), given.sweep.max_rounds, {})
    assert cells == {
        registry.parse("beam:n=8,width=4"): [("beam:width=4", 8), ("beam:width=4,temperature=1", 8)],
        registry.parse("beam:n=8,width=4,temperature=0.6"): [("beam:width=4,temperature=0.6", 8)],
    }
    name = "beam:width=4,temperature=validated"
    given = swept(CONFIG, "beam:width=4", name, temperatures=(0.6, 1.0))
    won = {(name, 4): 1.0, (name, 8): 0.6, (name, 1): 0.6, (name, 2): 0.6}
    found = search_cells(Grid.of(given), given.sweep.max_rounds, won)
    assert found == {
        registry.parse("beam:n=4,width=4"): [("beam:width=4", 4), (name, 4)],
        registry.parse("beam:n=8,width=4"): [("beam:width=4", 8)],
        registry.parse("beam:n=8,width=4,temperature=0.6"): [(name, 8)],
    }


# ---- the choice


VOTE, BEAM = "majority:temperature=validated", "beam:width=4,temperature=validated"
COLD = "best_of_n:select=weighted,temperature=0.5"
TUNED = swept(CONFIG, "majority", COLD, VOTE, BEAM, temperatures=(0.5, 1.0, 2.0), tune_questions=6)


def row(rng, split, q, strategy, n, seed, sample, temperature, right, tokens=10):
    found = make_row(rng, q, strategy, n, seed, sample)
    given = {"correct": right, "answer": "7" if right else "8", "step_truth": [True, right]}
    return found | given | {"question": f"{split}-{q:03d}", "temperature": temperature, "tokens": tokens}


def validation_rows(rng):
    """0.5 is right most often when voting; of beams 2.0 at 4 generations, and at 8 all are equally often right."""
    found = []
    for q in range(6):
        for t, share in ((0.5, 5), (1.0, 3), (2.0, 2)):
            trial = tune.Settings.of(TUNED).bank
            seed = temperatures.stream(trial.seed, t, trial.sampler.temperature)
            found += [row(rng, "valid", q, "sample", 0, seed, i, t, q < share) for i in range(max(BUDGETS))]
            name = f"beam:width=4,temperature={t}"
            for n, shares in ((4, {0.5: 1, 1.0: 2, 2.0: 3}), (8, {0.5: 3, 1.0: 3, 2.0: 3})):
                right = q < shares[t]
                found += [row(rng, "valid", q, name, n, s, i, t, right) for s in (3, 4) for i in range(n)]
    return found


@pytest.fixture
def tuned(tmp_path):
    """A run whose test rows say the opposite of its validation rows: at 0.5 every vote is wrong, at 1.0 right."""
    workdir, rng = epath.Path(tmp_path), np.random.default_rng(0)
    trial = validation_rows(rng)
    rng.shuffle(trial)
    parquet.write_shard(parquet.shard_path(workdir / "tune", 0), trial, sample_rows.SCHEMA)
    folders.complete(workdir / "tune")
    sampled = [
        row(rng, "test", q, "sample", 0, seed_at(TUNED, t), i, t, t == 1.0, tokens=10 if t == 1.0 else 30)
        for t in (1.0, 0.5)
        for q in range(QUESTIONS)
        for i in range(8)
    ]
    search = {
        (BEAM, n): [
            row(rng, "test", q, BEAM, n, s, i, {4: 2.0, 8: 1.0}[n], q % 2 == 0)
            for q in range(QUESTIONS)
            for s in (3, 4)
            for i in range(n)
        ]
        for n in (4, 8)
    }
    write(workdir, sampled, search)
    only = greedy_rows([r for r in sampled if r["temperature"] == 1.0])
    parquet.write_shard(parquet.shard_path(workdir / "greedy", 0), only, sample_rows.SCHEMA)
    folders.complete(workdir / "greedy")
    return workdir, sampled, search


def chosen(config: ExperimentConfig, workdir: epath.Path) -> temperatures.Chosen:
    return validated.chosen(validated.Choice.of(config), {"tune": workdir / "tune"})


def test_the_choice_is_made_on_validation_alone(tuned):
    workdir, _, search = tuned
    found = chosen(TUNED, workdir)
    # Below its width a beam is best-of-N, and as good as the votes here; at 8 the sampler's own is the nearest.
    assert found == {
        **{(VOTE, n): 0.5 for n in BUDGETS},
        (BEAM, 1): 0.5,
        (BEAM, 2): 0.5,
        (BEAM, 4): 2.0,
        (BEAM, 8): 1.0,
    }
    summary = summarise(workdir, TUNED)
    told = summary["temperatures"]
    assert told["validation"]["chosen"] == {name: {str(n): found[name, n] for n in BUDGETS} for name in (VOTE, BEAM)}
    assert told["strategies"][VOTE] == {str(n): 0.5 for n in BUDGETS}
    assert told["strategies"]["majority"] == {str(n): 1.0 for n in BUDGETS}
    accuracy = summary["accuracy"]["strategies"]
    for n in map(str, BUDGETS):
        assert accuracy["majority"][n]["mean"] == 1, "the sampler's own rows are all right"
        assert accuracy[VOTE][n]["mean"] == accuracy[COLD][n]["mean"] == 0, "test rows had a part in the choice"
    assert accuracy[BEAM]["2"]["mean"] == 0
    for n in (4, 8):
        assert accuracy[BEAM][str(n)]["mean"] == naive_accuracy(search[BEAM, n], n, "weighted") == 0.5
    assert summary["missing"] == 0
    by_t = told["validation"]["accuracy"]
    assert told["validation"]["questions"] == 6
    assert [by_t[VOTE][t]["2"]["mean"] for t in ("0.5", "1.0", "2.0")] == pytest.approx([5 / 6, 3 / 6, 2 / 6], abs=1e-6)
    assert [by_t[BEAM][t]["4"]["mean"] for t in ("0.5", "1.0", "2.0")] == pytest.approx([1 / 6, 2 / 6, 3 / 6], abs=1e-6)
    cell = by_t[VOTE]["0.5"]["8"]
    assert cell["low"] < cell["mean"] < cell["high"]


def test_a_named_temperature_is_treated_as_any_other_name(tuned):
    workdir, _, _ = tuned
    summary = report_of(workdir, TUNED)
    won = chosen(TUNED, workdir)
    right = summary["over_optimisation"]["chosen"]
    assert (right["majority"]["4"]["right"]["mean"], right[COLD]["4"]["right"]["mean"]) == (1, 0)
    assert summary["accuracy"]["monte_carlo_error"][COLD]["8"] == 0
    prompts = {f"test-{q:03d}": 5 for q in range(QUESTIONS)}
    trained: dict[str, Trained] = {name: {"params": 10, "tokens_seen": 1} for name in ("policy", "prm")}
    sampled, search = (sample_rows.read_folder(workdir / name) for name in ("bank", "search"))
    at = measure(Rules.of(TUNED), sampled, search, chosen=won).temperatures
    costs = ledger.of_strategies(TUNED.sweep, sampled, search, prompts, trained, at)
    assert costs["majority"][4].policy_tokens == 4 * 10
    assert costs[COLD][4].policy_tokens == costs[VOTE][4].policy_tokens == 4 * 30
    assert costs[BEAM][2].policy_tokens == 2 * 30
    table = (workdir / "report.partial" / "temperatures.csv").read_text().splitlines()
    assert len(table) == 1 + 2 * 3 * len(BUDGETS)
    assert f"{VOTE},0.5,true,4,{5 / 6:.6f}" in [line.rsplit(",", 2)[0] for line in table]
    page = (workdir / "report.partial" / "index.html").read_text()
    assert "Temperatures chosen on validation questions" in page
    assert "<td>chosen, and used on the test questions</td><td>0.5</td><td>0.5</td><td>2</td><td>1</td>" in page


def test_ties_go_to_the_temperature_nearest_to_the_samplers():
    equal = {0.4: np.array([1.0, 0.0]), 0.9: np.array([0.0, 1.0]), 1.1: np.array([0.5, 0.5]), 2.0: np.array([0.4, 0.5])}
    assert validated.best(equal, 1.1) == 1.1
    assert validated.best(equal, 1.0) == 0.9, "of equally near ones the lower"
    assert validated.best(equal, 3.0) == 1.1


def test_a_choice_from_part_of_the_rows_is_refused(tmp_path):
    workdir, found = epath.Path(tmp_path), validation_rows(np.random.default_rng(0))
    parquet.write_shard(parquet.shard_path(workdir / "tune", 0), found[1:], sample_rows.SCHEMA)
    folders.complete(workdir / "tune")
    with pytest.raises(UserError, match="1 results of the tune stage are missing"):
        chosen(TUNED, workdir)


# ---- the stage


def tuned_sweep(models, name, **changes):
    made = models(name)
    made = swept(
        made,
        *("majority", "majority:temperature=validated", "beam:width=2,temperature=validated"),
        temperatures=(0.5, 1.0),
        tune_questions=4,
        **changes,
    )
    # The stages that it reads were made with these settings too.
    return made


def test_a_tuned_sweep_asks_validation_questions_and_can_be_resumed_and_shared(models):
    one, two = tuned_sweep(models, "one"), tuned_sweep(models, "two")
    workdir = pathlib.Path(one.workdir)
    before = sweep.plan(one)
    # 4 questions: 4 samples at each of two temperatures; at each, searches of 2 and 4 beams with two seeds.
    tried = [cell for cell in before.cells if cell.stage == "tune"]
    assert sum(cell.whole.generations for cell in tried) == 4 * (2 * 4 + 2 * 2 * (2 + 4))
    assert not before.temperatures_known
    [line] = [line for line in sweep.plans.lines(before, "probe") if line.startswith("the bank at all of")]
    assert "at most these" in line
    held = [cell for cell in before.cells if cell.stage == "bank"]
    assert [cell.answers for cell in held] == [(("sample", 4),), (("sample:temperature=0.5", 4),)]

    sweep.run(one)
    made = files(one)
    asked = {row["question"] for name, found in made.items() if name.startswith("tune/") for row in found}
    tested = {row["question"] for name, found in made.items() if not name.startswith("tune/") for row in found}
    _, splits = loader.askable(inputs.resolved(one, epath.Path(workdir)).questions, epath.Path(workdir) / "data")
    assert asked == {example.id for example in splits.valid[:4]}
    assert tested == {example.id for example in splits.test[:]}
    assert not asked & tested
    after = sweep.plan(one)
    assert after.temperatures_known
    assert after.left.generations == 0
    won = chosen(one, epath.Path(workdir))
    names = ("majority:temperature=validated", "beam:width=2,temperature=validated")
    assert set(won) == {(name, n) for name in names for n in (1, 2, 4)}
    # Every row of a search carries the temperature that won for its budget.
    for name, found in made.items():
        for row_ in found if name.startswith("search/") and "validated" in name else ():
            assert row_["temperature"] == won[row_["strategy"], row_["n"]]
    held = {row_["temperature"] for name, found in made.items() if name.startswith("bank/") for row_ in found}
    assert held == set(samples_by_temperature(one, won))

    for name in ("tune", "bank", "search"):  # Lost shards are made again, and nothing else changes.
        lost = sorted((workdir / name).glob("*.parquet"))[-1]
        lost.unlink()
    sweep.run(one)
    assert files(one) == made
    for _ in range(3):
        last = parts(two, 2)
    assert "report" in last[-1]
    assert files(two) == made


def test_only_what_is_validated_reruns_what_was_tuned():
    sweep_ = SweepConfig(strategies=("majority", "beam:width=4"), budgets=(4, 16))
    base = ExperimentConfig(sweep=sweep_, orm=ORMConfig(base=True))

    def changed(given, other):
        wanted = [s for s in stages.STAGES if s.wanted(other) and s.name != "report"]
        return {s.name for s in wanted if stages.fingerprint(s, given) != stages.fingerprint(s, other)}

    named = swept(base, "majority", "beam:width=4", "majority:temperature=0.6")
    assert changed(base, named) == {"bank", "rescore"}, "the bank answers it"
    searching = swept(base, "majority", "beam:width=4", "beam:width=4,temperature=0.6")
    assert changed(base, searching) == {"search"}, "a search at another temperature needs no other samples"
    tuned_ = swept(base, "majority", VOTE, temperatures=(0.5, 1.0))
    assert changed(tuned_, swept(tuned_, "majority", VOTE, "beam:width=4")) == {"search"}
    assert changed(tuned_, swept(tuned_, *tuned_.sweep.strategies, tune_questions=9)) >= {"tune", "bank", "search"}
    assert not stages.get_stage("tune").wanted(base)
    assert stages.get_stage("tune").wanted(tuned_)
    assert json.dumps(stages.fingerprint(stages.get_stage("bank"), named))
