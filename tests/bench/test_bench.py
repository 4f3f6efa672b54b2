"""The benchmarks on a toy shape, through the command line; the other side only where it is installed."""

import dataclasses
import importlib.util
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import rounding
from ttcjax import cli
from ttcjax.bench import shapes, sharing
from ttcjax.bench.protocol import Side
from ttcjax.model import flops, transformer
from ttcjax.model.importers import published
from ttcjax.runtime.errors import UserError

PEER = all(map(importlib.util.find_spec, ("torch", "transformers")))
needs_peer = pytest.mark.skipif(not PEER, reason="transformers is not installed: pip install 'ttcjax[bench]'")
SMALL = {
    "sample": ["--n", "6", "--prompt", "20", "--tokens", "8"],
    "queue": ["--requests", "12", "--width", "4", "--mean", "4", "--most", "16", "--prompt", "8"],
    "search": ["--questions", "2", "--n", "4", "--width", "2", "--rounds", "3", "--step", "4", "--prompt", "20"],
    "verify": ["--n", "3", "--step", "4", "--prompt", "20"],
}


def bench(tmp_path, kind, *more):
    path = tmp_path / "rows.json"
    arguments = ["bench", kind, *SMALL[kind], "--shape", "tiny", "--repeats", "1", "--json", str(path), *more]
    assert cli.main(arguments) == 0
    return json.loads(path.read_text())


def score_error(folder):
    """How far rounding may lead the scores of a verifier of the tiny shape; its longest sums are those of the MLP."""
    config = shapes.shape("tiny", "float32")
    tokens = jnp.asarray(np.random.default_rng(0).integers(4, config.vocab_size, (3, 64)), jnp.int32)
    positions, value = jnp.broadcast_to(jnp.arange(64)[None], tokens.shape), jnp.asarray(shapes.value_head(config))

    @jax.jit
    def scores(tree):
        return jax.nn.sigmoid(transformer.forward(tree, tokens, positions, config) @ value)

    shapes.write_weights(config, folder)
    return rounding.noise(scores, published.open_published(published.recognise(str(folder))).load(), config.d_ff)


@pytest.mark.parametrize("kind", SMALL)
def test_each_benchmark_gives_rows_and_a_table(tmp_path, capfd, kind):
    rows = bench(tmp_path, kind)
    assert len(rows) == (3 if kind == "verify" else 1)
    printed = capfd.readouterr().out
    for row in rows:
        assert row["ours"] > 0
        assert row["peak_rss_bytes"]["ours"] > 10e6
        assert row["name"] in printed
        assert (row["ratio"] is None) == (kind != "queue"), "a ratio needs another side"
    if kind == "verify":
        read = [row["notes"]["verifier_tokens"] for row in rows]
        # 19 prompt tokens once, and the prompt's last and every new token of 3 rows: linear in the rounds.
        assert read == [19 + 3 * (1 + 4 * rounds) for rounds in (3, 6, 12)], "tokens were read more than once"
        assert max(row["notes"]["largest_difference"] for row in rows) <= score_error(tmp_path)


@pytest.mark.slow
def test_curves_are_drawn_and_written_as_they_come(tmp_path, monkeypatch):
    monkeypatch.setattr("ttcjax.bench.command.CURVES", ((1, 3), (16,)))
    figure = tmp_path / "curves.png"
    rows = bench(tmp_path, "sample", "--curves", "--figure", str(figure))
    assert [(row["prompt"], row["n"]) for row in rows] == [(16, 1), (16, 3)]
    assert figure.read_bytes().startswith(b"\x89PNG")


@needs_peer
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sample", "search", "verify"])
def test_the_other_side_runs_the_same_model(tmp_path, kind):
    rows = bench(tmp_path, kind, "--peer", "transformers")
    for row in rows:
        assert row["ratio"] == pytest.approx(row["ours"] / row["peer"])
        assert row["peak_rss_bytes"]["peer"] > 10e6
    assert {row["name"].rpartition(" ")[2] for row in rows} >= ({"plain", "careful"} if kind != "verify" else set())


@pytest.mark.skipif(PEER, reason="transformers is installed")
def test_a_missing_peer_is_named_before_anything_runs(capsys):
    assert cli.main(["bench", "sample", "--peer", "transformers"]) == 2
    assert "pip install 'ttcjax[bench]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sample", "--n", "0"], "positive whole number"),
        (["sample", "--shape", "huge"], "unknown shape"),
        (["search", "--n", "6"], "divide"),
        (["search", "--width", "1"], "at least 2"),
        (["flops", "--n", "6"], "divide"),
        (["flops", "--prompt", "1"], "at least 2 tokens"),
        (["flops", "--shape", "tiny", "--prompt", "4000"], "lower --prompt 4000"),
        (["sample", "--seed", "-1"], "--seed"),
        (["verify", "--prompt", "1"], "at least 2 tokens"),
        (["sample", "--json", "/nowhere/rows.json"], "name a file in a local folder that is there"),
        (["sample", "--figure", "a.png"], "add --curves"),
        (["compile", "--prompts", "1", "5"], "at least 2 tokens"),
    ],
)
def test_bad_settings_are_answered_in_one_line(capsys, arguments, message):
    assert cli.main(["bench", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_side_that_fails_says_why():
    with (
        Side("ttcjax", "ttcjax.bench.ours") as side,
        pytest.raises(UserError, match=r"ttcjax side .* in load: .*no model"),
    ):
        side.call("load", folder="/nowhere", model={}, sampler={})
    with Side("broken", "ttcjax.bench.nothing") as side, pytest.raises(UserError, match=r"ended in load .*nothing"):
        side.call("load")


def test_a_side_that_died_between_orders_is_an_error():
    def lose(side):
        side._process.kill()
        side._process.wait()
        side.call("limits", dtype="float32")

    with pytest.raises(UserError, match="with status -9"), Side("ttcjax", "ttcjax.bench.ours") as side:
        lose(side)


@pytest.mark.slow
def test_a_second_sweep_compiles_nothing(tmp_path, capsys):
    path = tmp_path / "list.json"
    few = ["--budgets", "4", "--questions", "6", "--prompts", "8", "60"]
    assert cli.main(["bench", "compile", *few, "--json", str(path)]) == 0
    listed = json.loads(path.read_text())
    assert listed["again"] == 0
    assert len(listed["prompt_buckets"]) == 2
    assert len(listed["first"]) == 3 * len(listed["prompt_buckets"])
    printed = capsys.readouterr().out
    assert all(entry["name"] in printed for entry in listed["first"])


def test_flops_are_counted_by_shape_and_by_xla(tmp_path, capsys):
    """2 rows of 3 tokens after a prompt of 6, with steps of 2 tokens, counted by hand."""
    path = tmp_path / "flops.json"
    size = ["--n", "2", "--width", "2", "--prompt", "6", "--tokens", "3", "--step", "2"]
    assert cli.main(["bench", "flops", "--shape", "tiny", *size, "--json", str(path)]) == 0
    found = json.loads(path.read_text())
    whole, beam = found["rows"]
    config = shapes.shape("tiny", "float32")
    weights = 2 * (2 * 64 * (64 + 32) + 3 * 64 * 128)  # Two layers: queries, keys, values and output; the MLP.
    norms = 2 * 2 * 64 + 64
    both = (512 * 64 + weights + norms) * 2 + 65  # The verifier has a value head too.
    assert whole["logical"] == beam["logical"] == 2 * both * (6 + 2 * 3)
    assert whole["logical_again"] == 2 * both * 2 * (6 + 3)
    assert beam["logical_again"] == 2 * both * 2 * (6 + 2 + 6 + 3), "each step reads what stands before it"
    rows = flops.decode(config, 3, before=5) + flops.forward(config, 4, before=5, logits=0)
    assert whole["executed"] == beam["executed"] == pytest.approx(2 * flops.prefill(config, 5) + 2 * rows)
    own = flops.prefill(config, 5) + flops.decode(config, 3, before=5) + flops.forward(config, 9, logits=0)
    assert whole["executed_again"] == pytest.approx(2 * own)
    assert beam["executed_again"] > whole["executed_again"] > whole["executed"]
    printed = capsys.readouterr().out
    assert all(row["name"] in printed for row in found["rows"])
    assert f"decode step {found['xla']['decode_step']:.3f}" in printed


def test_xla_counts_what_the_engine_is_said_to_execute():
    """Norms, rotations and softmax, which only XLA counts, are a percent or two of a small model; a prompt of a
    length that is read in blocks would lack three quarters of its attention, since a loop's body counts once."""
    config = shapes.shape("qwen2-40m", "float32")
    small = dataclasses.replace(config, num_layers=2, vocab_size=512)
    found = sharing.check(small, n=4, prompt=1025, tokens=32)
    assert 1 < found.prefill < 1.03
    assert 1 < found.decode_step < 1.03
