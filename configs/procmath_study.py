"""The study: more questions than the demo, several drafts in training, and a control for what attempts tell.

Command:   ttcjax run configs/procmath_study.py --workdir runs/study
Hardware:  two CPU cores, no accelerator, no downloads.
Time:      not measured as a whole; a thousand of the policy's steps took 15 min on one busy core.
Expect:    not measured as a whole. A policy of `pair`, `residue` and `algebra`, a thousand such steps, was right in
           0.23, 0.40 and 0.43 of the pairs at the first, second and fourth answer of a chain, and in 0.30, 0.03 and
           0.07 with another question's answers in view.
"""

import dataclasses
import pathlib
import runpy

from ttcjax.config import ChainsConfig, DataConfig, DraftsConfig, ExperimentConfig, OptimizerConfig, TrainConfig

DEMO = pathlib.Path(__file__).with_name("procmath_tiny.py")


def get_config() -> ExperimentConfig:
    demo: ExperimentConfig = runpy.run_path(str(DEMO))["get_config"]()
    revision = demo.revision
    return dataclasses.replace(
        demo,
        name="procmath_study",
        workdir="runs/procmath_study",
        # 20 test questions of every subject and level. Not `doors`, `reach` and `subset`: to look up numbers by what
        # stands beside them was not learned by models of this size within 2.6 million tokens.
        data=DataConfig(
            name="procmath",
            seed=1,
            families=("derivations", "pair", "residue", "change"),
            num_train=30_000,
            num_valid=500,
            num_test=1000,
        ),
        policy=TrainConfig(
            steps=1800,
            batch_size=20,
            seq_len=192,
            accumulate=2,
            # Many small steps: to look back at attempts is learned late, and by steps more than by tokens.
            optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=50, final_fraction=0.02),
            validate_every=300,
        ),
        drafts=DraftsConfig(failing=0.35, several=0.6, kept=0.4, most=3, restate=True, again=0.3),
        revision=dataclasses.replace(
            revision,
            trajectories=dataclasses.replace(revision.trajectories, kept=0.3),
            # Far below the policy's own rate: what its drafts have taught is to be kept.
            train=dataclasses.replace(revision.train, optimizer=OptimizerConfig(learning_rate=5e-4, warmup_steps=20)),
        ),
        sweep=dataclasses.replace(demo.sweep, shard_questions=260),
        chains=ChainsConfig(
            budgets=(1, 2, 4, 8, 16), answers=16, chains=2, swap=16, questions=520, shard_questions=130
        ),
    )
