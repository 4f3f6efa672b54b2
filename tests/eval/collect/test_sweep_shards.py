"""Who makes which shard: every one by exactly one part, whenever the parts start."""

import pytest
from etils import epath

from ttcjax.config import ChainsConfig, ExperimentConfig, ORMConfig, SweepConfig
from ttcjax.eval.collect import bank, rescore, rescore_chains, revision_chains, searches
from ttcjax.runtime.errors import UserError
from ttcjax.runtime.shards import WHOLE, Part, cut

CONFIG = ExperimentConfig(
    sweep=SweepConfig(
        samples=64,
        budgets=(1, 4, 16, 64),
        strategies=("majority", "beam:width=4", "beam:width=sqrt", "lookahead:width=4,k=1"),
        seeds=3,
        shard_questions=7,
        verifiers=("one=elsewhere", "two:min=elsewhere"),
    ),
    orm=ORMConfig(base=True),
    chains=ChainsConfig(questions=20, shard_questions=8),
)
QUESTIONS = 45
SEARCHES = searches.Settings.of(CONFIG)
SHARDS = {
    "bank": bank.shards_of(bank.Settings.of(CONFIG), QUESTIONS, {}),
    "rescore": rescore.shards_of(rescore.Settings.of(CONFIG), QUESTIONS),
    "search": searches.shards_of(SEARCHES, QUESTIONS, {}),
    "chains": revision_chains.shards_of(revision_chains.Settings.of(CONFIG), QUESTIONS),
    "rescore_chains": rescore_chains.shards_of(rescore_chains.Settings.of(CONFIG), QUESTIONS),
}


def work(shards):
    return sum(shard.questions * max(1, shard.generations) for shard in shards)


@pytest.mark.parametrize("stage", SHARDS)
def test_shards_cover_every_question_of_every_cell_once(stage):
    questions = 20 if "chains" in stage else QUESTIONS
    cells: dict[tuple, list[int]] = {}
    for shard in SHARDS[stage]:
        cells.setdefault((shard.answers, shard.seed), []).extend(range(shard.first, shard.first + shard.questions))
    assert len(cells) == {"search": 3 * len(searches.by_answers(SEARCHES)), "rescore": 3, "rescore_chains": 2}.get(
        stage, 1
    )
    assert all(taken == list(range(questions)) for taken in cells.values())


@pytest.mark.parametrize("stage", SHARDS)
def test_no_two_shards_share_a_file(stage, tmp_path):
    paths = [path for shard in SHARDS[stage] for path in shard.paths(epath.Path(tmp_path))]
    assert len(set(paths)) == len(paths)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 50])
@pytest.mark.parametrize("stage", SHARDS)
def test_parts_share_every_shard_out_once_and_evenly(stage, count):
    every = SHARDS[stage]
    parts = [Part(i, count).of(every) for i in range(1, count + 1)]
    assert sorted(every.index(shard) for part in parts for shard in part) == list(range(len(every)))
    largest = max(work([shard]) for shard in every)
    # What greedy sharing promises: nobody has more than an even share and one shard.
    assert max(map(work, parts)) <= work(every) / count + largest
    assert all([every.index(s) for s in part] == sorted(every.index(s) for s in part) for part in parts), (
        "a part that jumps between cells compiles each of them more than once at a time"
    )


def test_shards_of_one_size_go_round():
    every = cut(100, 10, strategy="s", answers=(("s", 1),), seed=0, generations=4)
    assert [shard.number for shard in Part(2, 4).of(every)] == [1, 5, 9]
    assert WHOLE.of(every) == every


def test_the_first_part_of_many_has_one_of_the_largest_shards_of_a_stage():
    """What the dry run names to learn the time: one shard, of the cell that takes most."""
    every = SHARDS["search"]
    [shard] = Part(1, len(every)).of(every)
    assert work([shard]) == max(work([s]) for s in every)


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "1/0", "a/b", "1/4/2", "-1/4", "1/٤", "", "1 / 4"])
def test_a_part_is_read_with_care(text):
    with pytest.raises(UserError, match="--part must be I/K with I from 1 to K"):
        Part.parse(text)


def test_parts_round_trip_through_text():
    assert Part.parse("2/16") == Part(2, 16)
    assert str(Part(2, 16)) == "2/16"
