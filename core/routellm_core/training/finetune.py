"""Fine-tuning of bert and causal_llm: a stream of labelled prompts, transformers' Trainer, and one end for both."""

from __future__ import annotations

import math
import random
import shutil
import time
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

from routellm_core.checks import MAX_STATE_BYTES, Progress, check_options, checked_count, damage_named, read_json_object
from routellm_core.data.convert import STRONG_WINS, TIE, WEAK_WINS, PairLabel, label_pair, no_pair
from routellm_core.data.records import Outcome, Record
from routellm_core.data.seen_prompts import SeenPrompts, prompt_fingerprint
from routellm_core.errors import DataError, MissingExtraError
from routellm_core.routers.base import Router
from routellm_core.training.options import FINE_TUNING_DEFAULTS, FineTuning, FineTuningOptions
from routellm_core.training.processes import warn_of_missing_processes
from routellm_core.training.proof import Split, check_sources, distinct_prompts
from routellm_core.training.summary import Trained, TrainingSummary, check_output, finish_training

Source: TypeAlias = Callable[[], Iterable[Record]]

LABEL_NAMES = {STRONG_WINS: "strong wins", TIE: "tie", WEAK_WINS: "weak wins"}
CHECKPOINTS = "checkpoints"
_MAX_VALIDATION = 2_000
_MAX_HELD_OUT = 10_000
_SHUFFLE_BUFFER = 10_000
# Prompts to calibrate on when the data have no held-out and no validation part.
_CALIBRATION_PROMPTS = 1_000


@dataclass
class Survey:
    """What one pass over the data found; of most rows it keeps eight bytes, so the data may be larger than memory.

    Attributes:
        train: Training rows of each label (0 strong wins, 1 tie, 2 weak wins).
        train_weight: Sum of their weights.
        validation: Labelled prompts for early stopping (the first 2,000).
        held_out: Records for the metrics (the first 10,000).
        rows: Rows in each part.
        sources: Rows of each source.
        trained_on: Fingerprints of the prompts for training and for early stopping.
    """

    train: Counter[int] = field(default_factory=Counter)
    train_weight: Counter[int] = field(default_factory=Counter)
    validation: list[PairLabel] = field(default_factory=list)
    held_out: list[Record] = field(default_factory=list)
    rows: Counter[str] = field(default_factory=Counter)
    sources: Counter[str | None] = field(default_factory=Counter)
    trained_on: array[int] = field(default_factory=lambda: array("Q"))


def weighted(records: Iterable[Record], source_weights: Mapping[str, float] | None) -> Iterator[Record]:
    """Multiply the weights of records by those of their sources."""
    weights = dict(source_weights or {})
    for record in records:
        factor = weights.get(record.source) if record.source is not None else None
        yield record if factor is None else record.model_copy(update={"weight": record.weight * factor})


def survey(source: Source, split: Split, *, strong: list[str], weak: list[str], tie_margin: float) -> Survey:
    """Read the data once: count the training part, and keep what early stopping and the metrics need.

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
        if part != "held_out":
            out.trained_on.append(prompt_fingerprint(record.prompt))
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
    split.check_parts(
        {"train": sum(out.train_weight.values()), "validation": len(out.validation), "held_out": len(out.held_out)},
        sum(out.rows.values()),
    )
    return out


def label_stream(
    source: Source, split: Split, *, strong: list[str], weak: list[str], tie_margin: float, seed: int
) -> Iterator[PairLabel]:
    """Yield the labels of the training part, over and over, in an order that depends on the seed alone.

    Each pass is shuffled within a buffer of 10,000 rows, so the data may be larger than memory.
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


def class_weights(found: Survey, *, balance: bool) -> list[float]:
    """Factors on the loss of the three labels, scaled so that their mean over the training rows is 1.

    With `balance` all labels that occur have the same total weight; without it every row counts by its own weight.
    """
    total, count = sum(found.train_weight.values()), sum(found.train.values())
    present = [label for label in range(3) if found.train_weight[label] > 0]
    if not balance:
        return [count / total] * 3
    return [count / (len(present) * found.train_weight[label]) if label in present else 0.0 for label in range(3)]


def names_of(value: str | Iterable[str]) -> list[str]:
    """One or several model names as a list."""
    return [value] if isinstance(value, str) else list(value)


def import_training(what: str) -> tuple[Any, Any]:
    """Import torch and transformers, and make sure that accelerate is installed too.

    Raises:
        MissingExtraError: One of the three is not installed.
    """
    try:
        import accelerate  # type: ignore[import-untyped]  # noqa: F401 - the Trainer needs it, but would only say so late
        import torch
        import transformers
    except ImportError:
        raise MissingExtraError(what, "train") from None
    return torch, transformers


def padded(rows: list[list[int]], padding: int, *, side: Literal["left", "right"]) -> dict[str, Any]:
    """Rows of token ids as tensors ``input_ids`` and ``attention_mask`` (n, longest row), padded on one side."""
    import torch

    width = max(map(len, rows))
    ids = torch.full((len(rows), width), padding, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for i, row in enumerate(rows):
        at = slice(width - len(row), width) if side == "left" else slice(0, len(row))
        ids[i, at] = torch.tensor(row)
        mask[i, at] = 1
    return {"input_ids": ids, "attention_mask": mask}


class Learner(Protocol):
    """What a kind of model brings to its fine-tuning.

    Attributes:
        model: A transformers or peft model; the training changes it in place.
        settings: Settings of this kind for the summary; JSON values.
    """

    model: Any
    settings: Mapping[str, Any]

    def encode(self, prompts: list[str]) -> dict[str, Any]:
        """Tensors ``input_ids`` and ``attention_mask`` (n, width) of n prompts."""

    def targets(self, labels: Any) -> Any:
        """The class (n,) that the model is to predict for labels (n,): 0 strong wins, 1 tie, 2 weak wins."""

    def logits(self, model: Any, batch: Mapping[str, Any]) -> Any:
        """Logits, float32 (n, classes), of `model`, which may be wrapped, for a batch."""

    def router(self, model: Any) -> Router:
        """The router of the trained model."""


def fine_tune_router(
    name: str,
    load: Callable[[], Learner],
    source: Source,
    directory: str | Path,
    *,
    base: str | Path,
    strong: str | Collection[str],
    weak: str | Collection[str],
    how: FineTuning,
    options: FineTuningOptions,
) -> TrainingSummary | None:
    """Fine-tune a model, calibrate and measure the router, and save it: all that bert and causal_llm share.

    Under ``torchrun`` every process calls this; the first reads the rows of each step and distributes them.

    Args:
        name: Name of the router.
        load: Loads the model; called after the data have been checked and the random numbers seeded.
        source: See `train_bert`.
        directory: See `train_bert`.
        base: Name of the model that `load` loads, for the summary.
        strong: See `train_bert`.
        weak: See `train_bert`.
        how: Steps, sizes and rates.
        options: The options that the user passed.

    Returns:
        The summary; None on every process but the first of a distributed run.

    Raises:
        MissingExtraError: transformers or accelerate is not installed.
        ConfigurationError: An option is not allowed, or the directory holds a router.
        DataError: No row compares the pair, or too few rows to split.
    """
    started = time.monotonic()
    check_options(options, known=FINE_TUNING_DEFAULTS, owner=f"the training of {name}")
    opts: FineTuningOptions = {**FINE_TUNING_DEFAULTS, **options}
    _, transformers = import_training(f"Training the {name} router")
    path = check_output(directory, overwrite=opts["overwrite"])
    split = Split(validation=opts["validation"], held_out=opts["held_out"], seed=how.seed)
    strongs, weaks = names_of(strong), names_of(weak)

    def records() -> Iterator[Record]:
        return weighted(source(), opts["source_weights"])

    found = survey(records, split, strong=strongs, weak=weaks, tie_margin=opts["tie_margin"])
    check_sources(opts["source_weights"], found.sources)
    transformers.set_seed(how.seed)  # new weights start alike in every run
    learner = load()
    labels = partial(
        label_stream, records, split, strong=strongs, weak=weaks, tie_margin=opts["tie_margin"], seed=how.seed
    )
    trainer, report = _run_trainer(learner, labels, found, how, opts, path)
    if not trainer.is_world_process_zero():
        return None
    calibrate_on = distinct_prompts(found.held_out) or [label.prompt for label in found.validation]
    trained = Trained(
        router=learner.router(trainer.accelerator.unwrap_model(trainer.model)),
        strong=strongs[0],
        weak=weaks[0],
        measure_on=found.held_out,
        calibrate_on=calibrate_on or [record.prompt for record in islice(records(), _CALIBRATION_PROMPTS)],
        rows={**found.rows, "skipped": opts["skipped"]()},
        sources=found.sources,
        trained_on=SeenPrompts(found.trained_on),
        settings={
            "base": str(base),
            "strong_models": strongs,
            "weak_models": weaks,
            "tie_margin": opts["tie_margin"],
            **learner.settings,
            "balance": opts["balance"],
            "labels": {LABEL_NAMES[label]: count for label, count in sorted(found.train.items())},
            **asdict(how),
            **report,
        },
    )
    summary = finish_training(
        trained, path, started=started, draws=opts["draws"], money=opts["money"], command=opts["command"]
    )
    shutil.rmtree(path / CHECKPOINTS, ignore_errors=True)
    return summary


def _run_trainer(
    learner: Learner,
    labels: Callable[[], Iterator[PairLabel]],
    found: Survey,
    how: FineTuning,
    options: FineTuningOptions,
    directory: Path,
) -> tuple[Any, dict[str, Any]]:
    """Train with transformers' Trainer, which brings devices, processes and checkpoints (below `directory`).

    Args:
        learner: The model and what goes in and out of it.
        labels: Returns the endless stream of training labels, the same one at each call.
        found: What the survey of the data found.
        how: Steps, sizes and rates.
        options: All options.
        directory: Where the checkpoints are until the run ends.

    Returns:
        The Trainer, with the best model in it, and what to report: steps, processes, losses.
    """
    import torch
    import transformers

    factors = torch.tensor(class_weights(found, balance=options["balance"]))

    def collate(rows: list[PairLabel]) -> dict[str, Any]:
        kinds = torch.tensor([row.label for row in rows])
        weights = torch.tensor([row.weight for row in rows], dtype=torch.float32) * factors[kinds]
        inputs = learner.encode([row.prompt for row in rows])
        return {**inputs, "labels": learner.targets(kinds), "weights": weights}

    def loss(model: Any, batch: dict[str, Any]) -> Any:
        each = torch.nn.functional.cross_entropy(learner.logits(model, batch), batch["labels"], reduction="none")
        return (each * batch["weights"]).mean()

    class Stream(torch.utils.data.IterableDataset[PairLabel]):
        # endless, so a single epoch to the Trainer: a run that resumes finds its place in any pass
        def __iter__(self) -> Iterator[PairLabel]:
            return labels()

    if how.gradient_checkpointing:
        learner.model.gradient_checkpointing_enable()  # the Trainer's argument for it was renamed within transformers 5
    arguments = _training_arguments(
        how, sum(found.train.values()), directory / CHECKPOINTS, validates=bool(found.validation)
    )
    warn_of_missing_processes(arguments.world_size)
    checkpoint = _last_checkpoint(directory / CHECKPOINTS, resume=options["resume"])
    resumed_at = _step_of(checkpoint)  # read before training, which removes old checkpoints
    stopping = [transformers.EarlyStoppingCallback(early_stopping_patience=how.patience)] if found.validation else []
    trainer = _weighted_trainer(loss)(
        model=learner.model,
        args=arguments,
        train_dataset=Stream(),
        eval_dataset=found.validation or None,
        data_collator=collate,
        callbacks=[_progress_callback(options["progress"]), *stopping, *options["callbacks"]],
    )
    trainer.remove_callback(transformers.PrinterCallback)  # it prints to stdout, where the commands write JSON
    # the loss is a mean already: the Trainer is to average it over accumulated batches
    trainer.model_accepts_loss_kwargs = False
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    report: dict[str, Any] = {
        "steps": trainer.state.global_step,
        "resumed_at_step": resumed_at,
        "world_size": arguments.world_size,
    }
    history = trainer.state.log_history
    report["train_loss"] = [round(row["loss"], 6) for row in history if "loss" in row]
    if found.validation:
        report["validation_loss"] = [round(row["eval_loss"], 6) for row in history if "eval_loss" in row]
    return trainer, report


def _weighted_trainer(loss: Callable[[Any, dict[str, Any]], Any]) -> Any:
    """The Trainer's class with this loss of (model, batch)."""
    import torch
    import transformers

    class WeightedTrainer(transformers.Trainer):
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

    return WeightedTrainer


def _progress_callback(progress: Progress | None) -> Any:
    """A callback of the Trainer that reports the optimizer steps, on the first process only."""
    import transformers

    class ProgressCallback(transformers.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if progress is not None and state.is_world_process_zero:
                progress(state.global_step, state.max_steps)

    return ProgressCallback()


def _training_arguments(how: FineTuning, rows: int, checkpoints: Path, *, validates: bool) -> Any:
    """The Trainer's arguments for `rows` training labels."""
    import torch
    import transformers

    arguments = transformers.TrainingArguments(
        output_dir=str(checkpoints),
        max_steps=1,
        per_device_train_batch_size=how.batch_size,
        per_device_eval_batch_size=how.batch_size,
        gradient_accumulation_steps=how.accumulate,
        learning_rate=how.learning_rate,
        weight_decay=how.weight_decay,
        lr_scheduler_type="linear",
        # stated here, because by its own detection several processes without a GPU would each train alone
        use_cpu=not torch.accelerator.is_available(),
        bf16=how.computes_in_bf16(),
        seed=how.seed,
        data_seed=how.seed,
        eval_strategy="steps" if validates else "no",
        save_strategy="steps",
        save_total_limit=2,
        load_best_model_at_end=validates,
        metric_for_best_model="loss" if validates else None,
        greater_is_better=False if validates else None,
        logging_strategy="steps",
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        report_to="none",
        disable_tqdm=True,
    )
    # only the arguments know how many processes there are
    rows_a_step = how.batch_size * how.accumulate * arguments.world_size
    steps = min(how.max_steps, max(1, math.ceil(how.epochs * rows / rows_a_step)))
    every = max(1, steps // how.evaluations)
    arguments.max_steps = steps
    arguments.eval_steps = arguments.save_steps = arguments.logging_steps = every
    arguments.warmup_steps = steps // 10
    return arguments


def _last_checkpoint(checkpoints: Path, *, resume: bool) -> Path | None:
    """The checkpoint to continue from; without `resume` old ones are removed."""
    from transformers.trainer_utils import get_last_checkpoint

    if not resume:
        shutil.rmtree(checkpoints, ignore_errors=True)
    if not checkpoints.is_dir():
        return None
    last: str | None = get_last_checkpoint(str(checkpoints))  # type: ignore[no-untyped-call]
    return None if last is None else Path(last)


def _step_of(checkpoint: Path | None) -> int:
    if checkpoint is None:
        return 0
    file = checkpoint / "trainer_state.json"
    state = read_json_object(
        file, "the checkpoint cannot be continued from; start over with restart", max_bytes=MAX_STATE_BYTES
    )
    with damage_named(file, "does not say how far the training was"):
        return checked_count(state["global_step"], "global_step", least=0)
