"""The whole story on the embedded domain: train a policy, a verifier and a reviser, then search and revise.

Command:   make demo, or: ttcjax run configs/procmath_tiny.py --workdir runs/demo
Hardware:  two CPU cores, no accelerator, no downloads.
Time:      7 min on two cores, 2 of them compiling, 1.3 GB.
Expect:    pass@1 0.39; at 4 generations majority 0.46, best-of-N weighted 0.49, beam search 0.49, one greedy answer
           0.55; step AUROC of the verifier 0.88. The revision model is trained too briefly to revise: chains fall.
           configs/procmath_study.py has what more training gives.
"""

from ttcjax.config import (
    ChainsConfig,
    DataConfig,
    ExperimentConfig,
    LabelConfig,
    ModelConfig,
    OptimizerConfig,
    ORMConfig,
    PRMConfig,
    RevisionConfig,
    SamplerConfig,
    SweepConfig,
    TokenizerConfig,
    TrainConfig,
    TrajectoryConfig,
)


def get_config() -> ExperimentConfig:
    return ExperimentConfig(
        name="procmath_tiny",
        workdir="runs/procmath_tiny",
        data=DataConfig(
            name="procmath", seed=1, num_train=16_000, num_valid=350, num_test=210, families=("derivations",)
        ),
        tokenizer=TokenizerConfig(vocab_size=768, number_pieces=100, merge_words=True),
        model=ModelConfig(
            num_layers=3, d_model=96, num_heads=4, num_kv_heads=4, head_dim=24, d_ff=256, max_seq_len=256
        ),
        policy=TrainConfig(
            steps=240,
            batch_size=64,
            seq_len=128,
            accumulate=4,  # What is at work at once then stays in a CPU's caches: a fifth faster, and half the memory.
            optimizer=OptimizerConfig(learning_rate=4e-3, warmup_steps=30, final_fraction=0.02),
            validate_every=240,
        ),
        sampler=SamplerConfig(max_tokens=88, max_step_tokens=12, verifier_chunk=8, rows=64, waves=16, prompt_bucket=64),
        labels=LabelConfig(questions=800, samples=4, rollouts=2, temperature=0.5, shard_questions=500),
        prm=PRMConfig(
            likelihood=True,
            imitation=1.0,
            train=TrainConfig(
                steps=80,
                batch_size=64,
                seq_len=128,
                accumulate=4,
                # Far above the paper's 3e-5: that is for a large pretrained model, this one has 4e5 weights.
                optimizer=OptimizerConfig(learning_rate=2e-3),
                validate_every=40,
                patience=4,
            ),
        ),
        revision=RevisionConfig(
            enabled=True,
            # Right answers too, the question once more after them: configs/procmath_revisions.py says why.
            trajectories=TrajectoryConfig(questions=1200, samples=8, context="any"),
            train=TrainConfig(
                steps=40,
                batch_size=20,
                seq_len=384,
                accumulate=5,
                optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=20),
                validate_every=20,
                past_minimum=1,
            ),
            max_seq_len=448,
            restate=True,
        ),
        # The PRM judges revisions too; configs/procmath_full.py trains verifiers of their own, and all else.
        orm=ORMConfig(revisions=False),
        sweep=SweepConfig(
            samples=24,  # 8 of them tell how hard a question is.
            budgets=(1, 4, 16),
            strategies=("majority", "best_of_n:select=weighted", "beam:width=4"),
            shard_questions=105,
        ),
        chains=ChainsConfig(budgets=(1, 2, 4), answers=4, chains=1, questions=70, shard_questions=70),
    )
