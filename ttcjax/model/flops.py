"""What a strategy costs: tokens and FLOPs, by the rule of thumb and by the shape of the model.

A multiplication with its addition is two FLOPs. *Logical* ones are the paper's: 2 P a token of inference and 6 P a
token of training, for a model of P parameters (Kaplan et al. 2020; Snell et al. 2024, section 7). *Executed* ones
follow the architecture: grouped-query attention over the keys that a token sees, a gated MLP, and the vocabulary
product only where logits are needed. Norms, rotations, softmax and the value head are left out: a percent or two of a
model of 256 units, less of a larger one.
"""

from __future__ import annotations

from ttcjax.config import ModelConfig


def inference(parameters: int, tokens: float) -> float:
    """Return the logical FLOPs of reading or writing tokens: 2 P each."""
    return 2.0 * parameters * tokens


def training(parameters: int, tokens: float) -> float:
    """Return the logical FLOPs of training on tokens: 6 P each, forwards and backwards."""
    return 6.0 * parameters * tokens


def layer(config: ModelConfig) -> float:
    """Return the FLOPs of one token in the matrices of one layer, attention between tokens apart."""
    heads, kv_heads, size = config.num_heads, config.num_kv_heads, config.head_dim
    projections = config.d_model * size * (heads + 2 * kv_heads) + heads * size * config.d_model
    return 2.0 * (projections + 3 * config.d_model * config.d_ff)


def head(config: ModelConfig) -> float:
    """Return the FLOPs of one token's logits."""
    return 2.0 * config.d_model * config.vocab_size


def forward(config: ModelConfig, tokens: int, *, before: int = 0, logits: int = 1, masked: bool = False) -> float:
    """Return the FLOPs of one row of tokens.

    Args:
        config: The model; its vocabulary size must be set where logits are wanted.
        tokens: Read or written, one after the other.
        before: Tokens in the cache; all of them see these, as far as a layer's window reaches.
        logits: How many of the tokens need logits: 1 for a prompt, all for tokens that are written.
        masked: Count keys that are computed and then masked too, as a program does that reads a row at once.
    """
    total = tokens * config.num_layers * layer(config) + logits * head(config)
    return total + sum(_attention(config, number, tokens, before, masked) for number in range(config.num_layers))


def prefill(config: ModelConfig, tokens: int, *, masked: bool = False) -> float:
    """Return the FLOPs of reading tokens into an empty cache.

    Of the last layer only keys and values are computed: nothing looks at the rest of it.

    Args:
        config: The model.
        tokens: Of the prompt but its last, which every row reads itself.
        masked: As in `forward`.
    """
    keys_values = 4.0 * config.d_model * config.num_kv_heads * config.head_dim
    unused = tokens * (layer(config) - keys_values) + _attention(config, config.num_layers - 1, tokens, 0, masked)
    return forward(config, tokens, logits=0, masked=masked) - unused


def decode(config: ModelConfig, tokens: int, *, before: int) -> float:
    """Return the FLOPs of sampling a row token by token after a shared prefix.

    A token is drawn from the logits of the one before it: the first from those of the prompt's last token, and the
    last is not read. So as many tokens are read as are drawn.

    Args:
        config: The policy.
        tokens: Tokens drawn.
        before: Tokens of the prefix: the prompt but its last.
    """
    return forward(config, tokens, before=before, logits=tokens)


def decode_step(config: ModelConfig, slots: int) -> float:
    """Return the FLOPs that a program computes for one token of one row: all slots of its caches, used or not."""
    return forward(config, 1, before=slots - 1, masked=True)


def _attention(config: ModelConfig, number: int, tokens: int, before: int, masked: bool) -> float:
    """Return the FLOPs of attention between tokens in layer `number`."""
    window = config.sliding_window if config.is_local(number) and not masked else None
    return 4.0 * config.num_heads * config.head_dim * _keys(tokens, before, window, masked)


def _keys(tokens: int, before: int, window: int | None, masked: bool) -> float:
    """Return how many keys the tokens of a row see in sum."""
    if masked:
        return float(tokens * (before + tokens))
    if window is None:
        return tokens * before + tokens * (tokens + 1) / 2
    full = max(0, min(tokens, window - before))  # Tokens that see all before them.
    return full * before + full * (full + 1) / 2 + (tokens - full) * window
