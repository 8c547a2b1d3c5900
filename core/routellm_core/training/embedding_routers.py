"""Training of the routers over prompt embeddings, from records to a saved router: mf, knn, sw_ranking, or the best."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, TypeAlias, Unpack

from routellm_core.checks import check_options
from routellm_core.data.convert import check_margin
from routellm_core.data.records import Record
from routellm_core.data.seen_prompts import SeenPrompts
from routellm_core.embedders import bundled_embedder
from routellm_core.errors import ConfigurationError
from routellm_core.training import auto, knn, mf, sw_ranking
from routellm_core.training.embedding_task import EmbeddingTask, PromptVectors
from routellm_core.training.options import EMBEDDING_DEFAULTS, EmbeddingRouterOptions
from routellm_core.training.proof import Split, TrainingData, distinct_prompts, out_of_fold_win_rates
from routellm_core.training.summary import Trained, TrainingSummary, check_output, finish_training

EmbeddingRouter: TypeAlias = Literal["mf", "knn", "sw_ranking", "auto"]

TRAINERS = {"mf": mf, "knn": knn, "sw_ranking": sw_ranking, "auto": auto}


def train_embedding_router(
    kind: EmbeddingRouter,
    records: Iterable[Record],
    directory: str | Path,
    *,
    strong: str,
    weak: str,
    **options: Unpack[EmbeddingRouterOptions],
) -> TrainingSummary:
    """Train a router on outcomes or battles, measure it on prompts that it was not trained on, and save it.

    The split is by prompt. Whatever a setting is chosen by (cross-validation, early stopping) happens inside the
    training part, so the prompts that measure decide nothing.

    Args:
        kind: ``"mf"``, ``"knn"`` or ``"sw_ranking"``; ``"auto"`` chooses one of them by cross-validation inside the
            training part, see `routellm_core.training.auto.choose`.
        records: Outcomes, battles, or both; read once.
        directory: Where to save the router, with its calibration, metrics and model card.
        strong: The strong model.
        weak: The weak model.
        **options: See `EmbeddingRouterOptions`; those that belong to another kind of router are refused.

    Returns:
        The summary.

    Raises:
        ConfigurationError: An option is not allowed or does not exist, or the directory holds a router.
        DataError: No record compares the pair, or too few rows to split.
    """
    started = time.monotonic()
    if kind not in TRAINERS:
        raise ConfigurationError(f"kind={kind!r}: expected one of {', '.join(TRAINERS)}")
    trainer = TRAINERS[kind]
    check_options(options, known=[*EMBEDDING_DEFAULTS, *trainer.OPTIONS], owner=f"the training of {kind}")
    opts: EmbeddingRouterOptions = {**EMBEDDING_DEFAULTS, **options}
    own = {name: value for name, value in options.items() if name in trainer.OPTIONS}
    folds, seed = opts["folds"], opts["seed"]
    check_margin(opts["tie_margin"])
    path = check_output(directory, overwrite=opts["overwrite"])
    if folds and (isinstance(folds, bool) or not isinstance(folds, int) or not 2 <= folds <= 100):
        raise ConfigurationError(f"folds={folds!r}: expected 0 (hold prompts out) or 2 to 100")

    split = Split(validation=0.0, held_out=0.0 if folds else opts["held_out"], seed=seed)
    data = TrainingData.of(records, split, strong=strong, weak=weak, source_weights=opts["source_weights"])
    embedder = bundled_embedder() if opts["embedder"] is None else opts["embedder"]
    prompts = [record.prompt for record in (*data.train, *data.held_out)]
    task = EmbeddingTask(
        strong=strong,
        weak=weak,
        embedder=embedder,
        vectors=PromptVectors(embedder, prompts, opts["progress"]),
        tie_margin=opts["tie_margin"],
        all_models=opts["all_models"],
        seed=seed,
        options=own,
    )
    fitted = trainer.fit_records(data.train, task)
    unseen = None
    if folds:
        fit = lambda rows: trainer.fit_records(rows, task).router  # noqa: E731
        unseen = out_of_fold_win_rates(fit, data.train, folds=folds, seed=seed)
    measure_on = data.train if folds else data.held_out
    settings = {
        "embedder": type(embedder).__name__,
        "dimension": embedder.dimension,
        "tie_margin": opts["tie_margin"],
        "seed": seed,
        **fitted.settings,
        **own,
    }
    trained = Trained(
        router=fitted.router,
        strong=strong,
        weak=weak,
        measure_on=measure_on,
        calibrate_on=distinct_prompts(measure_on or data.train),
        rows={"train": len(data.train), "held_out": len(data.held_out), "skipped": opts["skipped"]()},
        sources=data.sources,
        settings=settings,
        unseen=unseen,
        folds=folds,
        trained_on=SeenPrompts.of(record.prompt for record in data.train),
    )
    return finish_training(
        trained, path, started=started, draws=opts["draws"], money=opts["money"], command=opts["command"]
    )
