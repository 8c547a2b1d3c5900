"""What fine-tuning of bert and causal_llm shares: a stream of labelled prompts, and transformers' Trainer around it."""

from __future__ import annotations

import json
import math
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from routellm_core.checks import Progress
from routellm_core.data.convert import PairLabel, label_pair, no_pair
from routellm_core.data.records import Outcome
from routellm_core.errors import ConfigurationError, DataError, MissingExtraError
from routellm_core.training.summary import Record, Split

Source = Callable[[], Iterable[Record]]

CHECKPOINTS = "checkpoints"
_MAX_VALIDATION = 2_000
_MAX_HELD_OUT = 10_000
_SHUFFLE_BUFFER = 10_000


@dataclass(frozen=True)
class FineTuning:
    """How a model is fine-tuned; the defaults of each trainer are the paper's.

    Attributes:
        epochs: Passes over the training rows, unless `max_steps` ends it before.
        max_steps: Most optimizer steps.
        batch_size: Rows of one forward pass on one device.
        accumulate: Forward passes of one optimizer step.
        learning_rate: Highest learning rate; it rises over the first tenth and falls to zero along a line.
        weight_decay: Decoupled weight decay.
        evaluations: How often, over the run, the validation loss is looked at and a checkpoint written.
        patience: Evaluations without a better validation loss before the run stops.
        gradient_checkpointing: Trade time for memory.
        bf16: Compute in bfloat16, with the weights that learn kept in float32. None: on a GPU that can. On a CPU it
            pays where the processor has the instructions (AVX-512 BF16, AMX), and is slower where it has not.
        seed: Of the order, dropout and new weights.

    Raises:
        ConfigurationError: A value is out of its range.
    """

    epochs: float = 3.0
    max_steps: int = 2_000
    batch_size: int = 16
    accumulate: int = 1
    learning_rate: float = 1e-5
    weight_decay: float = 0.01
    evaluations: int = 10
    patience: int = 3
    gradient_checkpointing: bool = False
    bf16: bool | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.bf16 not in (None, True, False):
            raise ConfigurationError(f"bf16={self.bf16!r}: expected True, False, or None to take it where a GPU can")
        for name in ("max_steps", "batch_size", "accumulate", "evaluations", "patience"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigurationError(f"{name}={value!r}: expected an integer >= 1")
        for name, least in (("epochs", 1e-9), ("learning_rate", 1e-12), ("weight_decay", 0.0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < math.inf:
                raise ConfigurationError(f"{name}={value!r}: expected a positive number")

    def computes_in_bf16(self) -> bool:
        """Whether this machine is to compute in bfloat16."""
        import torch

        return torch.cuda.is_available() and torch.cuda.is_bf16_supported() if self.bf16 is None else self.bf16


@dataclass
class Survey:
    """What one pass over the data found; memory is bounded, however large the data are.

    Attributes:
        train: Training rows of each label (0 strong wins, 1 tie, 2 weak wins).
        train_weight: Sum of their weights.
        validation: Labelled prompts to stop early by (the first 2,000).
        held_out: Records for the metrics (the first 10,000).
        rows: Rows in each part.
        sources: Rows of each source.
    """

    train: Counter[int] = field(default_factory=Counter)
    train_weight: Counter[int] = field(default_factory=Counter)
    validation: list[PairLabel] = field(default_factory=list)
    held_out: list[Record] = field(default_factory=list)
    rows: Counter[str] = field(default_factory=Counter)
    sources: Counter[str | None] = field(default_factory=Counter)


def weighted(records: Iterable[Record], source_weights: Mapping[str, float] | None) -> Iterator[Record]:
    """The records with their weights multiplied by their source's."""
    weights = dict(source_weights or {})
    for record in records:
        factor = weights.get(record.source) if record.source is not None else None
        yield record if factor is None else record.model_copy(update={"weight": record.weight * factor})


def survey(source: Source, split: Split, *, strong: list[str], weak: list[str], tie_margin: float) -> Survey:
    """Read the data once: count the training part, keep what early stopping and metrics need.

    Raises:
        DataError: No row compares the pair, or a part that is asked for stays empty.
    """
    out = Survey()
    models: set[str] = set()
    for record in source():
        part = split.part(record.prompt)
        labels = list(label_pair([record], strong=strong, weak=weak, tie_margin=tie_margin))
        models.update(record.scores if isinstance(record, Outcome) else (record.model_a, record.model_b))
        if not labels:
            continue
        out.sources[record.source] += 1
        out.rows[part] += 1
        if part == "train":
            for label in labels:
                out.train[label.label] += 1
                out.train_weight[label.label] += label.weight  # type: ignore[assignment]  # a Counter adds floats too
        elif part == "validation":
            out.validation.extend(labels[: _MAX_VALIDATION - len(out.validation)])
        elif len(out.held_out) < _MAX_HELD_OUT:
            out.held_out.append(record)
    if not out.rows:
        raise DataError(no_pair(" or ".join(strong), " or ".join(weak), models))
    for name, share, count in (
        ("train", 1.0, sum(out.train_weight.values())),
        ("validation", split.validation, len(out.validation)),
        ("held-out", split.held_out, len(out.held_out)),
    ):
        if share and not count:
            raise DataError(f"{sum(out.rows.values())} rows have too few distinct prompts to split: no {name} part")
    return out


def label_stream(
    source: Source, split: Split, *, strong: list[str], weak: list[str], tie_margin: float, seed: int
) -> Iterator[PairLabel]:
    """The labels of the training part, over and over, in an order that the seed alone decides.

    Each pass is shuffled within a buffer of 10,000 rows, so that data larger than memory stream.
    """
    epoch = 0
    while True:
        rng = random.Random(f"{seed}/{epoch}")
        training = (record for record in source() if split.part(record.prompt) == "train")
        labels = label_pair(training, strong=strong, weak=weak, tie_margin=tie_margin)
        yield from _shuffled((x for x in labels if x.weight > 0), rng)
        epoch += 1


def _shuffled(labels: Iterable[PairLabel], rng: random.Random) -> Iterator[PairLabel]:
    buffer: list[PairLabel] = []
    for label in labels:
        if len(buffer) < _SHUFFLE_BUFFER:
            buffer.append(label)
            continue
        at = rng.randrange(len(buffer))
        out, buffer[at] = buffer[at], label
        yield out
    rng.shuffle(buffer)
    yield from buffer


def class_weights(found: Survey, balance: bool) -> list[float]:
    """Factor on the loss of each label, such that the mean over the training rows is 1.

    Balanced, each label that occurs has the same total weight; else all rows count by their own weight.
    """
    total, count = sum(found.train_weight.values()), sum(found.train.values())
    present = [label for label in range(3) if found.train_weight[label] > 0]
    if not balance:
        return [count / total] * 3
    return [count / (len(present) * found.train_weight[label]) if label in present else 0.0 for label in range(3)]


def checked_names(value: str | Iterable[str]) -> list[str]:
    """One or several model names as a list."""
    return [value] if isinstance(value, str) else list(value)


def import_training(what: str) -> tuple[Any, Any]:
    """The modules torch and transformers, where accelerate is there too.

    Raises:
        MissingExtraError: One of them is not installed.
    """
    try:
        import accelerate  # type: ignore[import-untyped]  # noqa: F401 - the Trainer needs it and says so late
        import torch
        import transformers
    except ImportError:
        raise MissingExtraError(what, "train") from None
    return torch, transformers


def fine_tune(
    model: Any,
    labels: Callable[[], Iterator[PairLabel]],
    validation: list[PairLabel],
    *,
    collate: Callable[[list[PairLabel]], dict[str, Any]],
    loss: Callable[[Any, dict[str, Any]], Any],
    rows: int,
    how: FineTuning,
    directory: Path,
    resume: bool,
    progress: Progress | None,
    callbacks: Iterable[Any] = (),
) -> tuple[Any, dict[str, Any]]:
    """Train `model` with transformers' Trainer, which brings devices, processes and checkpoints.

    Under ``accelerate launch`` or ``torchrun`` every process calls this; the first reads the data and deals it out.

    Args:
        model: A transformers or peft model; changed in place.
        labels: Gives the endless stream of the training part, the same at each call.
        validation: Labels to stop early by; empty trains to the end.
        collate: Turns labels into a batch of tensors; it has ``labels``.
        loss: Mean loss of (model, batch).
        rows: Training labels of one epoch.
        how: Steps, sizes and rates.
        directory: Checkpoints are kept below it while the run lasts.
        resume: Whether to go on from the last checkpoint there; else old ones are removed.
        progress: Called with (steps done, steps in all).
        callbacks: Further callbacks of the Trainer.

    Returns:
        The Trainer, with the best model in it, and what to report: steps, losses.
    """
    torch, transformers = import_training("Fine-tuning")
    checkpoints = directory / CHECKPOINTS

    class Stream(torch.utils.data.IterableDataset):  # type: ignore[misc, name-defined]
        # endless: one epoch to the Trainer, so that a run that resumes finds its place in any pass
        def __iter__(self) -> Iterator[PairLabel]:
            return labels()

    class LossTrainer(transformers.Trainer):  # type: ignore[misc, name-defined]
        def compute_loss(
            self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            value = loss(model, inputs)
            return (value, {"loss": value}) if return_outputs else value

        def prediction_step(
            self, model: Any, inputs: Any, prediction_loss_only: bool, ignore_keys: Any = None
        ) -> tuple[Any, None, None]:
            with torch.no_grad():
                return loss(model, self._prepare_inputs(inputs)).detach(), None, None

    class Told(transformers.TrainerCallback):  # type: ignore[misc, name-defined]
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if progress is not None and state.is_world_process_zero:
                progress(state.global_step, state.max_steps)

    if how.gradient_checkpointing:
        model.gradient_checkpointing_enable()  # the Trainer's argument for it changes its name within transformers 5
    step_rows = how.batch_size * how.accumulate
    cuda = torch.cuda.is_available()
    arguments = transformers.TrainingArguments(
        output_dir=str(checkpoints),
        max_steps=1,
        per_device_train_batch_size=how.batch_size,
        per_device_eval_batch_size=how.batch_size,
        gradient_accumulation_steps=how.accumulate,
        learning_rate=how.learning_rate,
        weight_decay=how.weight_decay,
        lr_scheduler_type="linear",
        # said, not found out: else several processes without a GPU would each train alone
        use_cpu=not torch.accelerator.is_available(),
        bf16=how.computes_in_bf16(),
        seed=how.seed,
        data_seed=how.seed,
        eval_strategy="steps" if validation else "no",
        save_strategy="steps",
        save_total_limit=2,
        load_best_model_at_end=bool(validation),
        metric_for_best_model="loss" if validation else None,
        greater_is_better=False if validation else None,
        logging_strategy="steps",
        remove_unused_columns=False,
        dataloader_pin_memory=cuda,
        report_to="none",
        disable_tqdm=True,
    )
    # the share of one process follows from how many there are, which only the arguments know
    steps = min(how.max_steps, max(1, math.ceil(how.epochs * rows / (step_rows * arguments.world_size))))
    every = max(1, steps // how.evaluations)
    arguments.max_steps = steps
    arguments.eval_steps = arguments.save_steps = arguments.logging_steps = every
    arguments.warmup_steps = steps // 10
    last = _last_checkpoint(transformers, checkpoints, resume)
    resumed = 0
    if last is not None:
        resumed = int(json.loads((Path(last) / "trainer_state.json").read_text(encoding="utf-8"))["global_step"])
    stopping = [transformers.EarlyStoppingCallback(early_stopping_patience=how.patience)] if validation else []
    trainer = LossTrainer(
        model=model,
        args=arguments,
        train_dataset=Stream(),
        eval_dataset=validation or None,
        data_collator=collate,
        callbacks=[Told(), *stopping, *callbacks],
    )
    trainer.remove_callback(transformers.PrinterCallback)  # it prints to stdout, which is a program's
    # the loss is a mean already: the Trainer is to average it over accumulated batches
    trainer.model_accepts_loss_kwargs = False
    trainer.train(resume_from_checkpoint=last)
    history = trainer.state.log_history
    report: dict[str, Any] = {"steps": trainer.state.global_step, "resumed_at_step": resumed}
    report["train_loss"] = [round(row["loss"], 6) for row in history if "loss" in row]
    if validation:
        report["validation_loss"] = [round(row["eval_loss"], 6) for row in history if "eval_loss" in row]
    return trainer, report


def remove_checkpoints(directory: Path) -> None:
    """Remove what an interrupted run would have gone on from."""
    shutil.rmtree(directory / CHECKPOINTS, ignore_errors=True)


def _last_checkpoint(transformers: Any, checkpoints: Path, resume: bool) -> str | None:
    if not resume:
        shutil.rmtree(checkpoints, ignore_errors=True)
    if not checkpoints.is_dir():
        return None
    found: str | None = transformers.trainer_utils.get_last_checkpoint(str(checkpoints))
    return found
