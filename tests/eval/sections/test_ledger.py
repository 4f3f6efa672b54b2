"""What a question costs, counted by hand on made-up rows."""

import dataclasses
import json

import numpy as np
import pyarrow as pa
import pytest
from etils import epath

from tests.eval.report.test_report import BUDGETS, CONFIG, QUESTIONS, STRATEGIES, make_rows
from tests.eval.sections.test_revisions import markov_chains
from ttcjax.config import ChainsConfig, ExperimentConfig, ModelConfig, RevisionConfig, to_dict
from ttcjax.eval.collect import revision_chains
from ttcjax.eval.records import trained as trained_lib
from ttcjax.eval.records.sample_rows import SCHEMA
from ttcjax.eval.records.trained import Trained
from ttcjax.eval.report.coding import encode
from ttcjax.eval.report.section import Summary
from ttcjax.eval.sections import accuracy
from ttcjax.eval.sections.spending import costs
from ttcjax.eval.stats.intervals import Estimate
from ttcjax.runtime import records
from ttcjax.runtime.errors import DamagedError
from ttcjax.testing import folders
from ttcjax.verify import formats
from ttcjax.verify.value_head import ValueHead

ASKING = "majority:ties=verifier"
LIKELIHOOD = "best_of_n:select=weighted,by=likelihood"
TRAINED = {"policy": {"params": 1000, "tokens_seen": 7}, "prm": {"params": 3000, "tokens_seen": 5}}
SHAPE = ModelConfig(vocab_size=50, num_layers=2, d_model=8, num_heads=2, num_kv_heads=1, head_dim=4, d_ff=16)
SHAPED = {
    "policy": TRAINED["policy"] | {"model": SHAPE},
    "prm": TRAINED["prm"] | {"model": dataclasses.replace(SHAPE, num_layers=3), "judge": ValueHead(likelihood=True)},
}
PROMPTS = {f"test-{q:03d}": 4 + q % 2 for q in range(QUESTIONS)}


def made_up(true_lengths=False):
    """Rows of the bank and of searches, of 10 tokens each unless lengths are to vary."""
    bank, search = make_rows()
    for cell in search.values():
        for row in cell:
            row["lookahead_tokens"] = 2
    rng = np.random.default_rng(0)
    for row in (row for cell in (bank, *search.values()) for row in cell if true_lengths):
        row["tokens"] = int(rng.integers(1, 20))
        row["verifier_tokens"] = row["tokens"] + row["lookahead_tokens"] + 1
    return bank, search


def costs_of(trained=TRAINED, made=None):
    bank, search = made or made_up()
    every = [row for cell in search.values() for row in cell]
    sampled, searched = (pa.Table.from_pylist(rows, schema=SCHEMA) for rows in (bank, every))
    sweep = dataclasses.replace(CONFIG.sweep, strategies=(ASKING, LIKELIHOOD, *STRATEGIES))
    at = {name: dict.fromkeys(BUDGETS, CONFIG.sampler.temperature) for name in sweep.strategies}
    per_question = costs.of_strategies(sweep, sampled, searched, PROMPTS, trained, at)
    return costs.Costs(per_question, costs.of_training(trained))


def counted(trained=TRAINED, made=None):
    return encode(costs_of(trained, made), places=15)


def test_costs_are_counted_by_question():
    """Every row has 10 tokens, all of them read by the verifier, those of a search 2 more of rollouts; prompts 4.5."""
    bank, search = made_up()
    found = counted(made=(bank, search))["per_question"]
    assert set(found) == {ASKING, LIKELIHOOD, *STRATEGIES}
    for n in BUDGETS:
        read = 4.5 + 10 * n
        asking, majority, weighted, beam = (
            found[name][str(n)] for name in (ASKING, STRATEGIES[0], STRATEGIES[1], STRATEGIES[3])
        )
        assert majority["flops"] == pytest.approx(2 * 1000 * read)
        assert majority["verifier_tokens"] == 0
        assert asking == weighted, "ties go by the verifier's scores"
        assert found[LIKELIHOOD][str(n)] == majority, "the policy's likelihood is known from sampling"
        assert weighted["flops"] == pytest.approx(2 * 1000 * read + 2 * 3000 * read)
        if (STRATEGIES[3], n) in search:
            assert beam["flops"] == pytest.approx(2 * 1000 * (read + 2 * n) + 2 * 3000 * read)
            assert (beam["policy_tokens"], beam["lookahead_tokens"]) == (10 * n, 2 * n)
        else:
            assert beam == weighted, "narrower than its width, a beam search is best-of-N"
        assert {cell["generations"] for cell in (asking, majority, weighted, beam)} == {n}
    # Narrower than its width, a beam search is best-of-N.
    assert found["beam:width=4"]["2"] == found[STRATEGIES[1]]["2"]


def token_by_token(config, position, logits):
    """FLOPs of the token at a position, from the sizes of the matrices."""
    heads, size = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    weights = config.d_model * (2 * heads + 2 * size + 3 * config.d_ff)
    vocabulary = config.d_model * config.vocab_size if logits else 0
    return 2 * (config.num_layers * weights + vocabulary) + 4 * config.num_layers * heads * (position + 1)


def prompt_read(config, tokens):
    """FLOPs of all of a prompt but its last token, the last layer's keys and values alone."""
    last = 2 * 2 * config.d_model * config.num_kv_heads * config.head_dim
    above = dataclasses.replace(config, num_layers=config.num_layers - 1)
    return sum(token_by_token(above, t, logits=False) + last for t in range(tokens - 1))


def row_costs(row):
    """FLOPs of policy and verifier for a row, the prompt's last token among what it reads."""
    policy, verifier = SHAPED["policy"]["model"], SHAPED["prm"]["model"]
    first, tokens = PROMPTS[row["question"]] - 1, row["tokens"]
    written = sum(token_by_token(policy, first + t, logits=True) for t in range(tokens))
    read = sum(token_by_token(verifier, first + t, logits=t > 0) for t in range(tokens + 1))
    rollouts = row["lookahead_tokens"]
    return written * (1 + rollouts / tokens), read * (1 + rollouts / (tokens + 1))


def test_executed_flops_are_those_of_every_token():
    """By loops over the tokens of every row; a prompt is read once a question by each model that is asked."""
    bank, search = made_up(true_lengths=True)
    found = counted(SHAPED, (bank, search))["per_question"]
    prompts = [np.mean([prompt_read(SHAPED[m]["model"], t) for t in PROMPTS.values()]) for m in ("policy", "prm")]
    sampled = np.mean([row_costs(row) for row in bank], axis=0)
    for n in BUDGETS:
        alone, weighted, beam = (found[name][str(n)] for name in (STRATEGIES[0], STRATEGIES[1], STRATEGIES[3]))
        assert alone["executed_flops"] == pytest.approx(prompts[0] + n * sampled[0]), "the verifier is not asked"
        assert weighted["executed_flops"] == pytest.approx(sum(prompts) + n * sum(sampled))
        if (STRATEGIES[3], n) not in search:
            continue
        rows = search[STRATEGIES[3], n]
        searched = sum(sum(row_costs(row)) for row in rows) / (len(rows) / n)
        assert beam["executed_flops"] == pytest.approx(sum(prompts) + searched), "rollouts or dropped beams are missing"
        assert beam["executed_ratio"] == pytest.approx(beam["executed_flops"] / beam["flops"])


def test_no_shape_no_executed_flops():
    """The checkpoints may be gone: what the rows alone tell is still told."""
    part = SHAPED | {"prm": TRAINED["prm"]}
    assert counted(part) == counted()
    assert "executed_flops" not in counted(part)["per_question"][STRATEGIES[0]]["1"]


def test_a_sweep_without_searches_is_counted_too():
    bank, _ = made_up(true_lengths=True)
    alone = counted(SHAPED, (bank, {}))["per_question"]
    for name in (ASKING, *STRATEGIES[:2]):
        assert alone[name] == counted(SHAPED, made_up(true_lengths=True))["per_question"][name]


def beams(rng, n, width, rounds):
    """A search with steps of 1 to 6 tokens in which chance decides what is kept: the tokens that each place draws,
    and how many keys of their own rows they see in all."""
    length, drawn, seen = np.zeros(n, int), np.zeros(n, int), 0
    for _ in range(rounds):
        step = rng.integers(1, 7, n)
        seen += sum(sum(range(before + 1, before + new + 1)) for before, new in zip(length, step, strict=True))
        drawn, length = drawn + step, length + step
        length = length[np.repeat(rng.permutation(n)[: n // width], width)]
    return drawn, seen


def test_a_place_is_about_as_long_as_what_it_goes_on_from():
    """What `with_executed` assumes, against true places in searches that keep beams at random. One search of 16 beams
    is off by 10% of the keys (standard deviation), 200 of them by 0.7%; all tokens first or last would be 100%."""
    rng, searches, n = np.random.default_rng(0), 200, 16
    found = [beams(rng, n, width=4, rounds=12) for _ in range(searches)]
    tokens = np.concatenate([drawn for drawn, _ in found])
    none = np.zeros_like(tokens)
    columns = {"question": ["q"] * len(tokens), "tokens": tokens, "lookahead_tokens": none, "verifier_tokens": none}
    table = costs.with_executed(pa.table(columns), {"q": 1}, SHAPE, SHAPE, ValueHead())
    matrices = tokens.sum() * (token_by_token(SHAPE, -1, logits=True))
    a_key = token_by_token(SHAPE, 1, logits=False) - token_by_token(SHAPE, 0, logits=False)
    keys = (sum(table["policy_flops"].to_pylist()) - matrices) / a_key
    assert keys == pytest.approx(sum(seen for _, seen in found), rel=0.03)


def test_training_costs_six_a_parameter_and_token():
    assert counted()["training"]["prm"] == {"params": 3000, "tokens": 5, "flops": 6 * 3000 * 5}


def test_what_training_data_took_is_told_beside():
    trained = {**TRAINED, "prm": {**TRAINED["prm"], "data_flops": 17.0}}
    assert counted(trained)["training"]["prm"] == {"params": 3000, "tokens": 5, "flops": 6 * 3000 * 5, "data_flops": 17}


def test_models_are_found_where_they_were_trained(tmp_path):
    workdir = epath.Path(tmp_path)
    model = {"params": 3, "tokens_seen": 4, "valid_loss": 0.5}
    made = {"policy": model, "prm": model, "orm": {"history": model, "no_history": model}, "data": {"train": 9}}
    for name, result in (made | {"larger.old-0123": model}).items():
        folders.complete(workdir / name, result=result)
    folders.complete(workdir / "revision", result=model, complete=False)
    found = trained_lib.models(workdir)
    assert found is not None
    assert set(found) == {"policy", "prm", "orm/history", "orm/no_history"}
    assert found["orm/history"] == {"params": 3, "tokens_seen": 4}
    assert "data_flops" not in found["prm"], "it is not known what its labels took"
    larger = {"params": 5, "tokens_seen": 4}
    folders.complete(workdir / "revision", result=larger | {"offline": larger, "sampled_tokens": 100})
    for stage, tokens in (("labels", 10), ("trajectories", 20), ("attempts", 7)):
        folders.complete(workdir / stage, result={"sampled_tokens": tokens})
    found = trained_lib.models(workdir)
    assert found is not None
    # Labels and trajectories are sampled from the policy, attempts and ReST^EM chains from the revision model.
    assert {name: model["data_flops"] for name, model in found.items() if "data_flops" in model} == {
        "prm": 2 * 3 * 10,
        "revision": 2 * 3 * 20 + 2 * 5 * 100,
        "orm/history": 2 * 5 * 7,
        "orm/no_history": 2 * 5 * 7,
    }
    folders.complete(workdir / "labels", result={"sampled_tokens": None})
    for stage in ("revision", "trajectories", "attempts"):
        records.path_of(workdir / stage).unlink()
    described = {"kind": "orm", "verifier": formats.describe(ValueHead(likelihood=True))}
    for name, about in (("prm", {"kind": "prm"}), ("orm/history", described)):
        (workdir / name / "best").mkdir(parents=True)
        (workdir / name / "best" / "metadata.json").write_text(json.dumps({"model": to_dict(SHAPE)} | about))
    found = trained_lib.models(workdir)
    assert found is not None
    assert [name for name, record in found.items() if record.get("model") == SHAPE] == ["orm/history", "prm"]
    judges = {name: record["judge"] for name, record in found.items() if "judge" in record}
    assert judges == {"prm": ValueHead(), "orm/history": ValueHead(likelihood=True)}
    (workdir / "prm" / "best" / "metadata.json").write_text("[]")
    with pytest.raises(DamagedError, match=r"prm/best/metadata.json is damaged"):
        trained_lib.models(workdir)
    records.path_of(workdir / "prm").unlink()
    assert trained_lib.models(workdir) is None


def test_it_is_drawn_and_written():
    found, point = costs_of(SHAPED), Estimate(0.5, 0.4, 0.6)
    strategies = {strategy: dict.fromkeys(BUDGETS, point) for strategy in (ASKING, LIKELIHOOD, *STRATEGIES)}
    summary = Summary("made up", "", QUESTIONS, 0, {"accuracy": accuracy.Accuracies(strategies, {}, {})})
    costs.figure(found, summary).canvas.draw()
    assert len(list(costs.csv_rows(found))) == (2 + len(STRATEGIES)) * len(BUDGETS) * 8


@pytest.mark.parametrize(
    ("variant", "restate"), [("history", False), ("history", True), ("no_history", True), ("prm", True)]
)
def test_revisions_pay_for_what_is_in_view(variant, restate):
    """By loops over the answers of every chain: three of four answers are in view at most, read anew each time."""
    config = ExperimentConfig(
        revision=RevisionConfig(enabled=True, restate=restate),
        chains=ChainsConfig(budgets=(1, 2, 8), answers=8, chains=2),
    )
    rng = np.random.default_rng(0)
    rows = markov_chains(rng, 4, config.chains.lengths).to_pylist()
    for row in rows:
        row |= {"tokens": int(rng.integers(1, 20)), "shown": min(row["place"], int(rng.integers(1, 4)))}
    rng.shuffle(rows)
    prompts = {f"q{q:03d}": 5 + q for q in range(4)}
    trained: dict[str, Trained] = {
        "revision": {"params": 100, "tokens_seen": 1},
        variant if variant == "prm" else f"orm/{variant}": {"params": 7, "tokens_seen": 1},
    }
    table = pa.Table.from_pylist(rows, schema=revision_chains.SCHEMA)
    found = encode(costs.revisions(config.chains, restate, table, prompts, trained, variant), places=15)
    at = {(row["question"], row["chain"], row["place"]): row for row in rows}
    lengths = config.chains.lengths
    for s, p in ((1, 1), (2, 1), (1, 8), (2, 4), (8, 1)):
        policy, verifier, count = 0, 0, 0
        for question, prompt in prompts.items():
            for chain in (c for c, length in enumerate(lengths) if length >= s):
                count += 1
                for place in range(s):
                    row = at[question, chain, place]
                    shown = [at[question, chain, k]["tokens"] for k in range(place - row["shown"], place)]
                    view = sum(shown) + (prompt - 1 if restate and shown else 0)
                    policy += view + row["tokens"]
                    verifier += row["tokens"] + (view if variant == "history" else 0)
        cell = found[f"revise:s={s},p={p}"]
        prompt = np.mean(list(prompts.values()))
        assert cell["policy_tokens"] + cell["context_tokens"] == pytest.approx(p * policy / count)
        assert cell["verifier_tokens"] == pytest.approx(p * verifier / count)
        flops = 2 * 100 * (prompt + p * policy / count) + 2 * 7 * (prompt + p * verifier / count)
        assert cell["flops"] == pytest.approx(flops)
        assert cell["generations"] == s * p
