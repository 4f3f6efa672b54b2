"""The study: where attempts inform and where they cannot, search, and a larger model, over several training seeds.

Command:   ttcjax study configs/procmath_study.py --seeds 3 --workdir runs/study
Hardware:  one GPU or TPU chip; on CPU cores leave the larger model out (`--larger.enabled False`).
Time:      on an H100 that six processes shared, a seed: policy 180 s, labels 80, verifier 50, bank 100. On two busy
           cores after that: searches 330 to 430 s, trajectories and revision 260 to 350, chains 320 to 470, 2.1 GB.
           On two cores the policy would take 43 min a seed (9,000 tokens a second), the larger model 2.8 hours (2,300).
Expect:    `coins` right in 0.30 of a chain's first answers and 0.86 of its 32nd, 0.08 at the 16th with another
           question's in view; best-of-N weighted 0.86 at N = 64, beam search 0.64, one greedy answer 0.64.
           Without the larger model and verifiers of revisions (`--larger.enabled False --orm.revisions False`).
"""

import dataclasses
import pathlib
import runpy

from ttcjax.config import ChainsConfig, DataConfig, DraftsConfig, ExperimentConfig, OptimizerConfig, TrainConfig

FULL = pathlib.Path(__file__).with_name("procmath_full.py")


def get_config() -> ExperimentConfig:
    full: ExperimentConfig = runpy.run_path(str(FULL))["get_config"]()
    revision = full.revision
    return dataclasses.replace(
        full,
        name="procmath_study",
        workdir="runs/procmath_study",
        # 40 test questions of every subject and level. Not `doors`, `reach` and `subset`: to look up numbers by what
        # stands beside them was not learned by models of this size within 2.6 million tokens.
        data=DataConfig(
            name="procmath",
            seed=1,
            families=("pair", "residue", "coins", "prealgebra", "intermediate_algebra"),
            num_train=30_000,
            num_valid=500,
            num_test=1000,
        ),
        model=dataclasses.replace(full.model, max_seq_len=384),
        larger=dataclasses.replace(full.larger, model=dataclasses.replace(full.larger.model, max_seq_len=384)),
        policy=TrainConfig(
            # To look back at attempts is learned late: at a third of the steps chains gain in one family alone.
            steps=6000,
            batch_size=10,
            # Four drafts and the question twice, but for derivations of level 5: a third to a half of those lose some.
            seq_len=384,
            optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=50, final_fraction=0.02),
            validate_every=1000,
            checkpoint_every=1000,
        ),
        drafts=DraftsConfig(failing=0.35, several=0.6, kept=0.4, most=4, restate=True, again=0.3),
        revision=dataclasses.replace(
            revision,
            max_seq_len=512,
            # The paper's wrong answers, and a share of right ones, without which right answers are left.
            trajectories=dataclasses.replace(revision.trajectories, context="wrong", kept=0.3),
            # Far below the policy's own rate: what its drafts have taught is to be kept.
            train=dataclasses.replace(revision.train, optimizer=OptimizerConfig(learning_rate=5e-4, warmup_steps=20)),
        ),
        sweep=dataclasses.replace(full.sweep, budgets=(1, 2, 4, 8, 16, 32, 64), shard_questions=250),
        chains=ChainsConfig(
            budgets=(1, 2, 4, 8, 16, 32), answers=32, chains=2, swap=16, questions=250, shard_questions=125
        ),
    )
