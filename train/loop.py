"""The only training loop: every model of the library is trained by `fit`."""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epath
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ttcjax.config import ModelConfig, OptimizerConfig, TrainConfig, config_hash
from ttcjax.parallel import first_devices, make_mesh
from ttcjax.runtime import stop
from ttcjax.runtime.checkpoint import Checkpoints
from ttcjax.runtime.errors import UserError
from ttcjax.runtime.progress import MetricWriter, progress
from ttcjax.train.batches import Batch, BatchIterator, pad_rows
from ttcjax.train.shares import micro_batch_share

logger = logging.getLogger(__name__)

LossSums = tuple[jax.Array, jax.Array, Mapping[str, tuple[jax.Array, jax.Array]]]
LossFn = Callable[[Any, Mapping[str, jax.Array], jax.Array | None], LossSums]
"""(params, batch, dropout key or None) to (sum of losses, sum of weights, {metric: (sum, weight)})."""


class DivergedError(UserError):
    """The loss is no longer a finite number."""


@dataclass(frozen=True)
class FitResult:
    """Result of `fit`."""

    params: Any
    """Parameters after the last step, on the devices; the best ones are in `best/`."""
    steps: int
    """Optimizer steps done; fewer than configured where patience ran out."""
    tokens_seen: int
    """Training tokens, padding left out."""
    train_loss: float
    """Mean over the last `log_every` steps or fewer."""
    valid_loss: float
    """Validation loss at `best_step`."""
    chosen_by: str
    """The validation metric that is lowest at `best_step`: `loss`, or one of those that the loss function names."""
    best_step: int
    """First step with the lowest value of that metric."""
    taken_step: int
    """Step of the parameters in `best/`: `past_minimum` validations later."""
    valid_metrics: dict[str, float]
    """The other validation metrics at `best_step`."""

    def summary(self) -> dict[str, Any]:
        """Return everything but the parameters, and their number, ready for JSON."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "params"}
        return {**fields, "params": sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(self.params))}


@dataclass
class _HostState:
    """State on the host that resuming needs, beside the device's and the data iterator's."""

    tokens_seen: int = 0
    train_loss: float = math.nan
    valid_loss: float = math.inf
    lowest: float = math.inf
    """Lowest value so far of the metric that chooses."""
    best_step: int = 0
    valid_metrics: dict[str, float] = field(default_factory=dict)
    taken_step: int = 0
    validations_since_best: int = 0
    window: dict[str, float] = field(default_factory=dict)
    """Sums since the last log line."""


def in_training(model: ModelConfig, train: TrainConfig) -> ModelConfig:
    """Return the model as a training run computes it: with that run's dropout, where it gives one."""
    return model if train.dropout is None else dataclasses.replace(model, dropout=train.dropout)


def learning_rate(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Return the learning rate as a function of the number of steps done before.

    It rises linearly to the peak in `warmup_steps`, then follows the schedule down to `final_fraction` of the
    peak at the last of `steps`.
    """

    def at(count: jax.typing.ArrayLike) -> jax.Array:
        step = jnp.asarray(count, jnp.float32) + 1
        warm = jnp.minimum(1.0, step / max(config.warmup_steps, 1))
        gone = jnp.clip((step - config.warmup_steps) / max(steps - config.warmup_steps, 1), 0.0, 1.0)
        left = {"constant": 1.0, "linear": 1.0 - gone, "cosine": 0.5 * (1.0 + jnp.cos(jnp.pi * gone))}[config.schedule]
        if config.schedule != "constant":
            left = config.final_fraction + (1.0 - config.final_fraction) * left
        return config.learning_rate * warm * left

    return at


def decay_mask(params: Any) -> Any:
    """Return booleans for the leaves that weight decay applies to: matrices, neither norms nor biases.

    Leaves below `layers` have one leading axis for the layer, which is not counted.
    """

    def is_matrix(path: tuple[Any, ...], leaf: Any) -> bool:
        names = [str(getattr(part, "key", part)) for part in path]
        if names and names[-1].endswith(("norm", "bias", "scale")):
            return False
        return len(leaf.shape) - ("layers" in names) >= 2

    return jax.tree_util.tree_map_with_path(is_matrix, params)


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """Return AdamW (Loshchilov and Hutter 2019) behind clipping by global norm."""
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm > 0 else optax.identity()
    adamw = optax.adamw(
        learning_rate(config, steps),
        b1=config.b1,
        b2=config.b2,
        eps=config.eps,
        weight_decay=config.weight_decay,
        mask=decay_mask,
    )
    chain = optax.chain(clip, adamw)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        with jax.numpy_dtype_promotion("standard"):  # Optax needs it, whatever the caller has set.
            return chain.update(updates, state, params)

    return optax.GradientTransformation(chain.init, update)


def init_state(config: TrainConfig, params: Any) -> dict[str, Any]:
    """Return the state before the first step: `params`, `opt_state` and `step`."""
    optimizer = make_optimizer(config.optimizer, config.steps)
    return {"params": params, "opt_state": optimizer.init(params), "step": jnp.zeros((), jnp.int32)}


def make_train_step(
    config: TrainConfig, loss_fn: LossFn, mesh: Mesh
) -> Callable[[Any, Mapping[str, jax.Array]], tuple[Any, dict[str, jax.Array]]]:
    """Compile one optimizer step `(state, batch) -> (state, sums)`; the state's buffers are donated.

    The batch is split over mesh axis `data`, which must divide its rows, and the state is the same on all devices.
    With `accumulate` above 1 the rows go through in that many micro-batches; gradients and losses are divided by
    the weights of the whole batch, so that the result does not depend on the split. The dropout key is folded from
    the seed and the step: step k draws the same masks in a resumed run. A row's masks follow from the key and the
    row's place in its micro-batch, so that rows of padding at the end of a batch do not change those of others.
    """
    optimizer = make_optimizer(config.optimizer, config.steps)
    schedule = learning_rate(config.optimizer, config.steps)

    def sums(params: Any, batch: Mapping[str, jax.Array], key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        loss, weight, metrics = loss_fn(params, batch, key)
        return loss, _named_sums(loss, weight, metrics, batch)

    gradient = jax.grad(sums, has_aux=True)

    def accumulated(params: Any, batch: Mapping[str, jax.Array], key: jax.Array) -> tuple[Any, dict[str, jax.Array]]:
        count = config.accumulate
        micro_sharding = NamedSharding(mesh, PartitionSpec(None, "data"))

        def split(x: jax.Array) -> jax.Array:
            # Strided, so that every device's rows stay on it.
            x = x.reshape((x.shape[0] // count, count, *x.shape[1:])).swapaxes(0, 1)
            return jax.lax.with_sharding_constraint(x, micro_sharding)

        def add(total: Any, scanned: tuple[dict[str, jax.Array], jax.Array]) -> tuple[Any, None]:
            micro, number = scanned
            part = gradient(params, micro, jax.random.fold_in(key, number))
            return jax.tree.map(jnp.add, total, part), None

        micros = {name: split(x) for name, x in batch.items()}
        first = jax.tree.map(lambda x: x[0], micros)
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(gradient, params, first, key))
        return jax.lax.scan(add, zeros, (micros, jnp.arange(count)))[0]

    def train_step(state: Any, batch: Mapping[str, jax.Array]) -> tuple[Any, dict[str, jax.Array]]:
        params, step = state["params"], state["step"]
        key = jax.random.fold_in(jax.random.key(config.seed), step)
        grads, out = (gradient if config.accumulate == 1 else accumulated)(params, batch, key)
        weight = jnp.maximum(out["loss_weight"], jnp.finfo(jnp.float32).tiny)
        grads = jax.tree.map(lambda g: g / weight, grads)
        updates, opt_state = optimizer.update(grads, state["opt_state"], params)
        out |= {"grad_norm": jnp.asarray(optax.tree.norm(grads)), "lr": jnp.asarray(schedule(step))}
        return {"params": optax.apply_updates(params, updates), "opt_state": opt_state, "step": step + 1}, out

    everywhere = NamedSharding(mesh, PartitionSpec())
    return jax.jit(train_step, donate_argnums=0, out_shardings=(everywhere, everywhere))


def _named_sums(
    loss: jax.Array,
    weight: jax.Array,
    metrics: Mapping[str, tuple[jax.Array, jax.Array]],
    batch: Mapping[str, jax.Array],
) -> dict[str, jax.Array]:
    tokens = jnp.sum(batch["segment_ids"] > 0) if "segment_ids" in batch else jnp.asarray(0)
    named = {"loss_sum": loss, "loss_weight": weight, "tokens": tokens}
    for name, (total, total_weight) in metrics.items():
        named |= {f"{name}_sum": total, f"{name}_weight": total_weight}
    return named


def _means(sums: Mapping[str, float]) -> dict[str, float]:
    names = [key.removesuffix("_sum") for key in sums if key.endswith("_sum")]
    return {name: sums[f"{name}_sum"] / max(sums[f"{name}_weight"], 1e-30) for name in names}


def fit(
    config: TrainConfig,
    loss_fn: LossFn,
    params: Any,
    train: BatchIterator,
    valid: Sequence[Batch],
    folder: epath.PathLike,
    *,
    name: str,
    metadata: Mapping[str, Any],
    choose_by: str = "loss",
    mesh: Mesh | None = None,
) -> FitResult:
    """Train a model, or go on with a run that was stopped, and keep the parameters that validation picks.

    A run that was killed at any moment and started again ends with the same parameters, bit for bit on the
    same devices, as one that was left alone. SIGTERM saves the state first. Metrics are read one step late, so
    that the devices never wait for the host.

    Any number of devices will do, and a run may go on with another number: rows are dealt out as
    `ttcjax.train.shares` says, rows of weight 0 fill shares up, and what a step computes is the same but for rounding.

    Args:
        config: Length, batch, optimizer, validation, checkpoints, seed.
        loss_fn: Sums over a batch, see `LossFn`. It is given a dropout key in training only.
        params: Initial parameters; not used by a run that goes on from a checkpoint.
        train: Endless batches with `config.batch_size` rows, the same in every process.
        valid: The validation batches, of the same shapes.
        folder: Holds `checkpoints/`, `best/` and `metrics.jsonl` afterwards.
        name: What is being trained, for progress lines.
        metadata: JSON-able values kept beside the best parameters, as `load_params` returns them.
        choose_by: The validation metric that picks the parameters, by its lowest value, and that patience waits for:
            `loss`, or one that the loss function names. A loss that is a sum of several need not be lowest where the
            one is that matters.
        mesh: Devices, on an axis `data`; all of them by default. Those that no row is left for stay idle.

    Raises:
        DivergedError: A loss is not finite; the message names the last good checkpoint.
        ValueError: The loss function has no metric `choose_by`.
        Stopped: SIGTERM came, or Ctrl-C as a KeyboardInterrupt; the state is saved, run again to go on.
        UserError: The disk is full, or the checkpoints found are all damaged or of another configuration.
    """
    mesh = make_mesh({"data": -1}) if mesh is None else mesh
    mesh = first_devices(mesh, micro_batch_share(config, mesh.size, jax.process_count()).devices)
    # A stop is held back until the state is saved.
    with (
        stop.guarded(),
        _Fit(config, loss_fn, params, train, valid, epath.Path(folder), name, metadata, choose_by, mesh) as run,
    ):
        return run.run()


class _Fit:
    """One call of `fit`."""

    def __init__(
        self,
        config: TrainConfig,
        loss_fn: LossFn,
        params: Any,
        train: BatchIterator,
        valid: Sequence[Batch],
        folder: epath.Path,
        name: str,
        metadata: Mapping[str, Any],
        choose_by: str,
        mesh: Mesh,
    ):
        self.config, self.name, self.metadata, self.choose_by = config, name, metadata, choose_by
        self.train, self.folder = train, folder
        self.batch_sharding = NamedSharding(mesh, PartitionSpec("data"))
        self.devices = mesh.size
        self.train_step = make_train_step(config, loss_fn, mesh)

        @functools.partial(jax.jit, out_shardings=NamedSharding(mesh, PartitionSpec()))
        def valid_step(params: Any, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
            return _named_sums(*loss_fn(params, batch, None), batch)

        self.valid_step = valid_step

        @functools.partial(jax.jit, out_shardings=NamedSharding(mesh, PartitionSpec()))
        def first_state(params: Any) -> dict[str, Any]:
            # Copied: the first step donates its input, and the caller's parameters must survive that.
            return init_state(config, jax.tree.map(jnp.copy, params))

        self.state = first_state(params)
        self.host = _HostState()
        self.step = 0
        self.pending: tuple[int, dict[str, jax.Array]] | None = None
        self.checkpoints = Checkpoints(folder, keep=config.keep_checkpoints, fingerprint=self._fingerprint())
        try:
            self._resume()
            self.writer = MetricWriter(folder, resume_step=self.step)
        except BaseException:
            self.checkpoints.close()
            raise
        self.valid = [self._put(batch, 1) for batch in valid]

    def __enter__(self) -> _Fit:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.writer.close()
        self.checkpoints.close()

    def _fingerprint(self) -> str:
        shapes = jax.tree.map(lambda x: f"{x.dtype}{list(x.shape)}", self.state["params"])
        # What chooses is part of it, so that no run goes on with another choice.
        return config_hash(self.config, shapes, dict(self.metadata), self.choose_by)

    def _resume(self) -> None:
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), self.state)
        restored = self.checkpoints.restore(abstract)
        if restored is None:
            return
        self.step, self.state, values = restored
        self.train.set_state(values.pop("data"))
        self.host = _HostState(**values)
        logger.info("%s: going on from step %d", self.name, self.step)

    def _put(self, batch: Batch, parts: int) -> dict[str, jax.Array]:
        """Return the batch on the devices, filled up so that each has as many rows of each of `parts` micro-batches."""
        # On the host and at the end, so that real rows keep their places: dropout masks belong to places.
        padded = pad_rows(batch, self.devices * parts)
        if jax.process_count() == 1:
            return jax.device_put(padded, self.batch_sharding)
        return {k: jax.make_array_from_callback(v.shape, self.batch_sharding, v.__getitem__) for k, v in padded.items()}

    @property
    def out_of_patience(self) -> bool:
        return 0 < self.config.patience <= self.host.validations_since_best

    def run(self) -> FitResult:
        config = self.config
        self.clock = time.monotonic()
        with progress(config.steps, self.name) as bar:
            bar.skip(self.step)
            while self.step < config.steps and not self.out_of_patience:
                self.state, sums = self.train_step(self.state, self._put(next(self.train), config.accumulate))
                self.step += 1
                self._read_pending()
                self.pending = (self.step, sums)
                last = self.step == config.steps
                saved = last or self.step % config.checkpoint_every == 0
                if last or (config.validate_every and self.step % config.validate_every == 0):
                    self._read_pending()
                    self._validate()
                    saved = saved or self.out_of_patience
                if saved:
                    self._save()
                bar.update(note="" if math.isnan(self.host.train_loss) else f"loss {self.host.train_loss:.4g}")
                if stop.noted():
                    if not saved:
                        self._save()
                    break
        self.checkpoints.wait()
        stop.obey(f"{self.name}: stopped at step {self.step}; run again to go on from there")
        host = self.host
        return FitResult(
            params=self.state["params"],
            steps=self.step,
            tokens_seen=host.tokens_seen,
            train_loss=host.train_loss,
            valid_loss=host.valid_loss,
            chosen_by=self.choose_by,
            best_step=host.best_step,
            taken_step=host.taken_step,
            valid_metrics=host.valid_metrics,
        )

    def _read_pending(self) -> None:
        """Account for the step dispatched last; waits for the device to finish it."""
        if self.pending is None:
            return
        step, sums = self.pending
        self.pending = None
        values = {key: value.item() for key, value in jax.device_get(sums).items()}
        loss = _means(values)["loss"]
        if not (math.isfinite(loss) and math.isfinite(values["grad_norm"])):
            self._diverged("loss" if not math.isfinite(loss) else "gradient", step)
        lr, grad_norm = values.pop("lr"), values.pop("grad_norm")
        host, window = self.host, self.host.window
        host.tokens_seen += values["tokens"]
        for key, value in values.items():
            window[key] = window.get(key, 0) + value
        if step % self.config.log_every and step != self.config.steps:
            return
        means = _means(window)
        host.train_loss = means["loss"]
        now = time.monotonic()
        rate = window["tokens"] / max(now - self.clock, 1e-9)
        self.writer.write(step, "train", {**means, "lr": lr, "grad_norm": grad_norm, "tokens_per_second": rate})
        self.clock = now
        window.clear()

    def _validate(self) -> None:
        begin = time.monotonic()
        # One after the other: batches that do not depend on each other may reach the devices in different orders, and
        # sums over CPU devices, which share their threads, then wait for each other for ever.
        parts = [jax.device_get(self.valid_step(self.state["params"], batch)) for batch in self.valid]
        totals = {key: float(np.sum([part[key] for part in parts])) for key in parts[0]}
        means = _means(totals)
        if self.choose_by not in means:
            raise ValueError(f"the loss function has no metric {self.choose_by!r} to choose by: {', '.join(means)}")
        for metric in dict.fromkeys(("loss", self.choose_by)):
            if not math.isfinite(means[metric]):
                self._diverged(f"validation {metric}", self.step)
        host = self.host
        if means[self.choose_by] < host.lowest:
            host.lowest, host.best_step, host.validations_since_best = means[self.choose_by], self.step, 0
            host.valid_loss = means["loss"]
            host.valid_metrics = {key: value for key, value in means.items() if key != "loss"}
        else:
            host.validations_since_best += 1
        past, last = host.validations_since_best, self.step == self.config.steps
        if past == self.config.past_minimum or (last and past < self.config.past_minimum):
            taken = {**self.metadata, "step": self.step, "valid_loss": means["loss"], "chosen_by": self.choose_by}
            self.checkpoints.save_best(self.state["params"], taken)
            host.taken_step = self.step
        self.writer.write(self.step, "valid", means)
        self.clock += time.monotonic() - begin  # Keeps the training rate free of validation.

    def _save(self) -> None:
        self._read_pending()
        host = dataclasses.asdict(self.host)
        self.checkpoints.save(self.step, self.state, {**host, "data": self.train.get_state()})

    def _diverged(self, what: str, step: int) -> None:
        self.checkpoints.wait()
        good = self.checkpoints.latest
        raise DivergedError(
            f"{self.name}: the {what} is not finite at step {step}; last good checkpoint: {good or 'none yet'}; "
            f"lower optimizer.learning_rate (now {self.config.optimizer.learning_rate:g}) or clip_norm"
        )
