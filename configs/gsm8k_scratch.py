"""Every stage on real text: GSM8K, a policy of about a million parameters trained from scratch.

Command:   ttcjax run configs/gsm8k_scratch.py --data.dir PATH
           PATH holds the data set's own train.jsonl and test.jsonl.
Hardware:  two CPU cores.
Expect:    accuracy near nothing. A model this small does not solve such problems; the run shows that
           ragged solutions, calculator marks and `#### n` answers go through every stage.
"""

from ttcjax.config import (
    DataConfig,
    ExperimentConfig,
    LabelConfig,
    ModelConfig,
    OptimizerConfig,
    PRMConfig,
    SamplerConfig,
    SweepConfig,
    TokenizerConfig,
    TrainConfig,
)


def get_config() -> ExperimentConfig:
    return ExperimentConfig(
        name="gsm8k_scratch",
        workdir="runs/gsm8k_scratch",
        data=DataConfig(name="gsm8k", dir="data/gsm8k", num_train=7_000, num_valid=100, num_test=60),
        tokenizer=TokenizerConfig(vocab_size=4_000, number_pieces=10, train_lines=7_000),
        # About a million parameters, half of them the embedding table.
        model=ModelConfig(
            num_layers=3, d_model=128, num_heads=4, num_kv_heads=2, head_dim=32, d_ff=384, max_seq_len=1024
        ),
        policy=TrainConfig(
            steps=200,
            batch_size=8,
            seq_len=512,
            optimizer=OptimizerConfig(learning_rate=4e-3),
            validate_every=100,
            checkpoint_every=100,
        ),
        # One prompt shape for nearly every question, so that few programs are compiled.
        sampler=SamplerConfig(max_tokens=224, max_step_tokens=64, rows=64, prompt_bucket=256),
        labels=LabelConfig(questions=40, samples=4, rollouts=2, shard_questions=20),
        prm=PRMConfig(
            train=TrainConfig(
                steps=40,
                batch_size=8,
                seq_len=512,
                dropout=0.05,
                optimizer=OptimizerConfig(learning_rate=3e-4, warmup_steps=5),
                validate_every=20,
                checkpoint_every=20,
            )
        ),
        sweep=SweepConfig(samples=8, budgets=(1, 2, 4, 8), bootstrap=1000, shard_questions=30),
    )
