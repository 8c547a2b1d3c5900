"""Training of the bert router: any encoder with a head of three labels, by transformers' Trainer."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from routellm_core.checks import Progress
from routellm_core.data.convert import PairLabel
from routellm_core.errors import ConfigurationError
from routellm_core.training.embedding_routers import distinct_prompts
from routellm_core.training.finetune import (
    FineTuning,
    Source,
    checked_names,
    class_weights,
    fine_tune,
    import_training,
    label_stream,
    remove_checkpoints,
    survey,
    weighted,
)
from routellm_core.training.summary import Split, TrainingSummary, check_output, check_sources, finish_training

_LABELS = {0: "strong wins", 1: "tie", 2: "weak wins"}


def train_bert(
    source: Source,
    directory: str | Path,
    *,
    base: str | Path,
    strong: str | Collection[str],
    weak: str | Collection[str],
    how: FineTuning | None = None,
    balance: bool = True,
    max_length: int | None = None,
    tie_margin: float = 0.0,
    validation: float = 0.1,
    held_out: float = 0.2,
    source_weights: Mapping[str, float] | None = None,
    skipped: Callable[[], int] = lambda: 0,
    overwrite: bool = False,
    resume: bool = True,
    draws: int = 1000,
    progress: Progress | None = None,
    callbacks: Collection[Any] = (),
) -> TrainingSummary | None:
    """Fine-tune an encoder to tell strong wins (label 0), tie (1) and weak wins (2) apart, and save it as a router.

    The win rate that the router will give is the probability of label 0. Prompts are cut and tokenised in training as
    the router does when it serves. A run that was interrupted goes on from its last checkpoint, with the order of the
    data and the state of the random numbers, when it is called again with the same arguments.

    Args:
        source: Called for each pass over the data: fresh iterators over battles or outcomes, such as
            ``lambda: read_preferences(path)``. Nothing but the validation and held-out parts is kept in memory.
        directory: Where to save the router, with its calibration, metrics and model card.
        base: Directory or hub id of the encoder, with a fast tokenizer; only safetensors weights are opened.
        strong: The strong model, or several that stand for it (a tier); metrics are those of the first.
        weak: The weak model, or several.
        how: Steps, sizes and rates.
        balance: Weight the labels such that each has the same share of the loss: ties are often rare or most.
        max_length: Longest prompt in tokens; None: 512, or the model's limit if less.
        tie_margin: Scores that differ by no more than this are a tie.
        validation: Share of prompts for early stopping; 0 trains to the end.
        held_out: Share of prompts for the metrics.
        source_weights: Factor on the weight of records by their source.
        skipped: Called at the end: how many malformed rows were left out, for the report.
        overwrite: Whether to replace a router that is there already.
        resume: Whether to go on from a checkpoint of an interrupted run.
        draws: Bootstrap draws of the intervals.
        progress: Called with (steps done, steps in all).
        callbacks: Further callbacks of the Trainer.

    Returns:
        The summary; None on every process but the first of a distributed run.

    Raises:
        MissingExtraError: torch, transformers or accelerate is not installed.
        ConfigurationError: An option is not allowed, the directory holds a router, or `base` is no usable encoder.
        DataError: No row compares the pair, or too few rows to split.
    """
    started = time.monotonic()
    torch, transformers = import_training("Training the bert router")
    from routellm_core.routers.bert import BERTRouter

    how = how or FineTuning()
    path = check_output(directory, overwrite=overwrite)
    split = Split(validation=validation, held_out=held_out, seed=how.seed)
    strongs, weaks = checked_names(strong), checked_names(weak)

    def records() -> Iterator[Any]:
        return weighted(source(), source_weights)

    found = survey(records, split, strong=strongs, weak=weaks, tie_margin=tie_margin)
    check_sources(source_weights, found.sources)
    factors = torch.tensor(class_weights(found, balance))
    transformers.set_seed(how.seed)  # the new head starts alike in every run
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(base))
        model = transformers.AutoModelForSequenceClassification.from_pretrained(
            str(base),
            num_labels=len(_LABELS),
            id2label=_LABELS,
            label2id={name: i for i, name in _LABELS.items()},
            use_safetensors=True,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,  # a head of another task is replaced
        )
    except (OSError, ValueError) as exc:
        raise ConfigurationError(f"base={str(base)!r}: not a usable encoder: {exc}") from exc
    reader = BERTRouter(model, tokenizer, max_length=max_length)  # its way of cutting and tokenising prompts
    model.train().requires_grad_(True)

    def collate(labels: list[PairLabel]) -> dict[str, Any]:
        rows = reader.encode([label.prompt for label in labels])
        width = max(map(len, rows))
        ids = torch.full((len(rows), width), tokenizer.pad_token_id, dtype=torch.long)
        mask = torch.zeros((len(rows), width), dtype=torch.long)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
            mask[i, : len(row)] = 1
        target = torch.tensor([label.label for label in labels])
        weights = torch.tensor([label.weight for label in labels], dtype=torch.float32) * factors[target]
        return {"input_ids": ids, "attention_mask": mask, "labels": target, "weights": weights}

    def loss(model: Any, batch: dict[str, Any]) -> Any:
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        each = torch.nn.functional.cross_entropy(logits.float(), batch["labels"], reduction="none")
        return (each * batch["weights"]).mean()

    trainer, report = fine_tune(
        model,
        partial(label_stream, records, split, strong=strongs, weak=weaks, tie_margin=tie_margin, seed=how.seed),
        found.validation,
        collate=collate,
        loss=loss,
        rows=sum(found.train.values()),
        how=how,
        directory=path,
        resume=resume,
        progress=progress,
        callbacks=callbacks,
    )
    if not trainer.is_world_process_zero():
        return None
    router = BERTRouter(
        trainer.accelerator.unwrap_model(trainer.model), tokenizer, max_length=max_length, batch_size=how.batch_size
    )
    summary = finish_training(
        router,
        path,
        strong=strongs[0],
        weak=weaks[0],
        held_out=found.held_out,
        calibrate_on=distinct_prompts(found.held_out) or [label.prompt for label in found.validation] or _some(records),
        rows={**found.rows, "skipped": skipped()},
        sources=found.sources,
        settings={
            "base": str(base),
            "strong_models": strongs,
            "weak_models": weaks,
            "tie_margin": tie_margin,
            "balance": balance,
            "labels": {_LABELS[label]: count for label, count in sorted(found.train.items())},
            **asdict(how),
            **report,
        },
        started=started,
        draws=draws,
    )
    remove_checkpoints(path)
    return summary


def _some(records: Source) -> list[str]:
    """Prompts to calibrate on where none are kept back: the first thousand."""
    return [record.prompt for record, _ in zip(records(), range(1000), strict=False)]
