"""Revisions at length: more steps, chains of 64 answers, budgets to 64, every verifier.

Command:   ttcjax run configs/procmath_revisions.py --workdir runs/revisions
           (a copy of that config's folder under this name saves the data, the policy and the larger one)
Hardware:  two CPU cores, no accelerator, no downloads.
Time:      not measured since questions ask for every result; about an hour before, after those stages.
Expect:    not measured since then. Before: pass@1 0.56 at every step of a chain; 16 answers in parallel 0.69, one chain
           of 16 0.68. configs/procmath_study.py has questions on which a chain rises.
"""

import dataclasses
import pathlib
import runpy

from ttcjax.config import (
    ChainsConfig,
    ExperimentConfig,
    OptimizerConfig,
    ORMConfig,
    RevisionConfig,
    TrainConfig,
    TrajectoryConfig,
)

FULL = pathlib.Path(__file__).with_name("procmath_full.py")


def get_config() -> ExperimentConfig:
    full: ExperimentConfig = runpy.run_path(str(FULL))["get_config"]()
    return dataclasses.replace(
        full,
        name="procmath_revisions",
        workdir="runs/procmath_revisions",
        labels=dataclasses.replace(full.labels, questions=5000),
        prm=dataclasses.replace(full.prm, train=dataclasses.replace(full.prm.train, steps=300, validate_every=100)),
        revision=RevisionConfig(
            enabled=True,
            trajectories=TrajectoryConfig(questions=16_000, samples=8, context="any"),
            train=TrainConfig(
                steps=1300,
                batch_size=20,
                seq_len=384,
                optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=20),
                validate_every=325,
                past_minimum=1,
            ),
            max_seq_len=448,
            restate=True,
        ),
        orm=ORMConfig(
            variants=("history", "no_history"),
            base=True,
            questions=4000,
            likelihood=True,
            imitation=1.0,
            train=TrainConfig(
                steps=400,
                batch_size=20,
                seq_len=384,
                optimizer=OptimizerConfig(learning_rate=2e-3),
                validate_every=100,
                patience=4,
            ),
        ),
        sweep=dataclasses.replace(
            full.sweep, budgets=(1, 2, 4, 8, 16, 32, 64), strategies=(*full.sweep.strategies, "beam:width=sqrt")
        ),
        chains=ChainsConfig(answers=64, refine=16, shard_questions=70),
    )
