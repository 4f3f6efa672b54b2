"""Every stage on the embedded domain: the demo with more training, its own verifiers of revisions, a larger model.

Command:   ttcjax run configs/procmath_full.py --workdir runs/full
Hardware:  two CPU cores, no accelerator, no downloads.
Time:      not measured whole; without revisions and outcome-reward models, and with fewer labels, 23 to 33 min on two
           busy cores, 12 to 19 of them for the larger model (docs/results.md, "A larger model").
Expect:    of those, over three seeds: beam search worse with budget on bins 1 and 2; a model 14 times as large right in
           0.82 where the policy is in 0.53, and better at equal FLOPs.
"""

import dataclasses
import pathlib
import runpy

from ttcjax.config import (
    ChainsConfig,
    ExperimentConfig,
    LargerConfig,
    ModelConfig,
    OptimizerConfig,
    ORMConfig,
    TrainConfig,
)

TINY = pathlib.Path(__file__).with_name("procmath_tiny.py")


def get_config() -> ExperimentConfig:
    tiny: ExperimentConfig = runpy.run_path(str(TINY))["get_config"]()
    revision = tiny.revision
    return dataclasses.replace(
        tiny,
        name="procmath_full",
        workdir="runs/procmath_full",
        data=dataclasses.replace(tiny.data, num_train=30_000, num_test=420),
        labels=dataclasses.replace(tiny.labels, questions=4500),
        prm=dataclasses.replace(tiny.prm, train=dataclasses.replace(tiny.prm.train, steps=240, validate_every=80)),
        revision=dataclasses.replace(
            revision,
            trajectories=dataclasses.replace(revision.trajectories, questions=5000),
            train=dataclasses.replace(revision.train, steps=150, validate_every=75),
        ),
        orm=ORMConfig(
            base=True,
            questions=600,
            likelihood=True,
            imitation=1.0,
            train=TrainConfig(
                steps=64,
                batch_size=20,
                seq_len=384,
                accumulate=5,
                optimizer=OptimizerConfig(learning_rate=2e-3),
                validate_every=32,
                patience=4,
            ),
        ),
        larger=LargerConfig(
            enabled=True,
            # 14.0 times the parameters.
            model=ModelConfig(
                num_layers=4, d_model=336, num_heads=8, num_kv_heads=8, head_dim=42, d_ff=896, max_seq_len=256
            ),
            optimizer=OptimizerConfig(learning_rate=2e-3, warmup_steps=30, final_fraction=0.02),
        ),
        sweep=dataclasses.replace(tiny.sweep, samples=80, budgets=(1, 2, 4, 8, 16, 64), shard_questions=210),
        chains=ChainsConfig(budgets=(1, 2, 4, 8, 16), answers=16, chains=2, questions=112, shard_questions=56),
    )
