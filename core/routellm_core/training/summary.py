"""What every trainer shares: the split by prompt, and the end of a run: calibration, held-out metrics, model card."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from routellm_core.calibration.distribution import Calibration
from routellm_core.data.contamination import prompt_key
from routellm_core.data.convert import PairScores, no_pair, pair_scores
from routellm_core.data.records import Battle, Outcome
from routellm_core.errors import ConfigurationError, DataError, RouteLLMError
from routellm_core.evaluation import Comparison, Estimate, RouterEvaluation, compare_routers, evaluate_router
from routellm_core.report.model_card import measured_on, metrics_table, model_card
from routellm_core.report.rendering import check_templates
from routellm_core.routers.base import CONFIG_FILE, Router

Record = Battle | Outcome
Part = Literal["train", "validation", "held_out"]

METRICS_FILE = "metrics.json"
CARD_FILE = "README.md"


@dataclass(frozen=True)
class Split:
    """Which prompts are for training, for stopping early, and for the metrics.

    A prompt's part follows from its text and the seed alone, so that repeats of a prompt (but for case, punctuation and
    spacing) stay together, files of any size can be split as a stream, and a run that resumes splits as before.

    Attributes:
        validation: Share for early stopping.
        held_out: Share for the metrics.
        seed: Another seed, another split.

    Raises:
        ConfigurationError: A share is not in [0, 0.9], or nothing is left to train on.
    """

    validation: float = 0.1
    held_out: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("validation", "held_out"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value <= 0.9:
                raise ConfigurationError(f"{name}={value!r}: expected a share of the prompts, 0 to 0.9")
        if self.validation + self.held_out > 0.95:
            raise ConfigurationError(
                f"validation={self.validation} and held_out={self.held_out}: too little is left to train on"
            )

    def part(self, prompt: str) -> Part:
        """The part that a prompt is in."""
        at = _position(prompt, self.seed)
        if at < self.held_out:
            return "held_out"
        return "validation" if at < self.held_out + self.validation else "train"


def fold_of(prompt: str, folds: int, seed: int) -> int:
    """The fold, 0 to folds - 1, that a prompt is in; repeats of a prompt are in one."""
    return int(_position(prompt, seed) * folds)


def _position(prompt: str, seed: int) -> float:
    """A number in [0, 1) that follows from the prompt and the seed."""
    digest = hashlib.blake2b(prompt_key(prompt), digest_size=8, salt=(seed % 2**63).to_bytes(8, "big")).digest()
    # 53 bits: more would round up to 1
    return (int.from_bytes(digest, "big") >> 11) / 2**53


@dataclass
class TrainingData:
    """Records in memory, split by prompt.

    Attributes:
        train: Records to learn from.
        validation: Records to stop early by.
        held_out: Records for the metrics.
        sources: Rows of each source (None: not named).
    """

    train: list[Record] = field(default_factory=list)
    validation: list[Record] = field(default_factory=list)
    held_out: list[Record] = field(default_factory=list)
    sources: Counter[str | None] = field(default_factory=Counter)

    @classmethod
    def of(
        cls,
        records: Iterable[Record],
        split: Split,
        *,
        strong: str,
        weak: str,
        source_weights: Mapping[str, float] | None = None,
    ) -> TrainingData:
        """Split records; weights of sources multiply those of their records.

        Raises:
            DataError: No record compares the pair, or a part that is asked for stays empty.
            ConfigurationError: A source to weight does not occur, or its weight is not a number >= 0.
        """
        weights = dict(source_weights or {})
        data = cls()
        models: set[str] = set()
        pairs = 0
        for record in records:
            data.sources[record.source] += 1
            names = set(record.scores) if isinstance(record, Outcome) else {record.model_a, record.model_b}
            models |= names
            pairs += {strong, weak} <= names
            if record.source in weights:
                record = record.model_copy(update={"weight": record.weight * weights[record.source]})
            getattr(data, split.part(record.prompt)).append(record)
        if not pairs:
            raise DataError(no_pair(strong, weak, models))
        check_sources(weights, data.sources)
        for name, share in (("train", 1.0), ("validation", split.validation), ("held_out", split.held_out)):
            if share and not getattr(data, name):
                raise DataError(
                    f"{sum(data.sources.values())} rows have too few distinct prompts to split: no {name} part"
                )
        return data


def check_sources(weights: Mapping[str, float] | None, sources: Mapping[str | None, int]) -> None:
    """Raise a `ConfigurationError` unless each source to weight occurs, and its weight is a number >= 0."""
    for name, value in (weights or {}).items():
        if not 0.0 <= value < float("inf"):
            raise ConfigurationError(f"weight {value} of source {name!r}: expected a number >= 0")
        if name not in sources:
            known = ", ".join(sorted(map(str, sources)))
            raise ConfigurationError(f"source {name!r} to weight does not occur in the data; it has: {known}")


@dataclass(frozen=True)
class TrainingSummary:
    """What a training run made, as measured on prompts that it never saw.

    Attributes:
        router: Name of the router.
        strong: The strong model.
        weak: The weak model.
        directory: Where it is saved.
        rows: Rows in each part (``train``, ``validation``, ``held_out``), and ``skipped`` malformed ones.
        sources: Rows of each source.
        settings: What it was trained with.
        seconds: How long it took.
        evaluation: Metrics on the held-out prompts with the baselines; None without any.
        bundled: Metrics of the bundled default on the same prompts; None where it could not be asked.
        gain: APGR of this router minus the bundled default's, paired; None where there is no such number.
        folds: Number of folds where the metrics are cross-validated; 0 where they are of prompts held out.
    """

    router: str
    strong: str
    weak: str
    directory: Path
    rows: dict[str, int]
    sources: dict[str, int]
    settings: dict[str, Any]
    seconds: float
    evaluation: RouterEvaluation | None
    bundled: dict[str, Estimate] | None = None
    gain: Comparison | None = None
    folds: int = 0

    def to_dict(self) -> dict[str, Any]:
        """JSON values: what metrics.json holds."""
        return {
            "router": self.router,
            "strong": self.strong,
            "weak": self.weak,
            "rows": self.rows,
            "sources": self.sources,
            "settings": self.settings,
            "seconds": round(self.seconds, 3),
            "folds": self.folds,
            "held_out": None if self.evaluation is None else self.evaluation.to_dict(),
            "bundled_default": self.bundled and {name: value.to_dict() for name, value in self.bundled.items()},
            "gain_over_bundled_default": None if self.gain is None else self.gain.difference.to_dict(),
        }

    @property
    def measured_on(self) -> str:
        """What the metrics were measured on, in words; empty without held-out prompts."""
        return measured_on(self.to_dict())

    def table(self) -> list[list[str]]:
        """Header and rows of the metrics, for a table; empty without held-out prompts."""
        return metrics_table(self.to_dict())


def finish_training(
    router: Router,
    directory: str | Path,
    *,
    strong: str,
    weak: str,
    held_out: Sequence[Record],
    calibrate_on: Sequence[str],
    rows: Mapping[str, int],
    sources: Mapping[str | None, int],
    settings: Mapping[str, Any],
    started: float,
    draws: int = 1000,
    unseen: Mapping[str, float] | None = None,
    folds: int = 0,
) -> TrainingSummary:
    """Calibrate, measure and save a router: its directory is complete when this returns.

    Args:
        router: The trained router.
        directory: Where to save it, with calibration.json, metrics.json and README.md (the model card).
        strong: The strong model.
        weak: The weak model.
        held_out: Records for the metrics; rows without both models are passed over.
        calibrate_on: Prompts for the calibration; best such that the router was not trained on.
        rows: Rows in each part.
        sources: Rows of each source.
        settings: What it was trained with; JSON values.
        started: ``time.monotonic()`` at the start.
        draws: Bootstrap draws of the intervals.
        unseen: Win rate of each prompt by a router that was not trained on it, to measure and calibrate by; None takes
            those of `router`.
        folds: Number of folds that `unseen` comes from.

    Returns:
        The summary.
    """
    path = Path(directory)

    def rates_of(prompts: Sequence[str]) -> npt.NDArray[np.float64]:
        return router.win_rates(prompts) if unseen is None else np.array([unseen[prompt] for prompt in prompts])

    calibration = Calibration.from_win_rates(rates_of(calibrate_on), router=router.name, fingerprint=router.fingerprint)
    router.calibration = calibration.condensed()
    evaluation, bundled, gain = _measure(rates_of, router.name, held_out, strong, weak, draws)
    summary = TrainingSummary(
        router=router.name,
        strong=strong,
        weak=weak,
        directory=path,
        rows=dict(rows),
        sources={str(name or "(not named)"): count for name, count in sources.items()},
        settings=dict(settings),
        seconds=time.monotonic() - started,
        evaluation=evaluation,
        bundled=bundled,
        gain=gain,
        folds=folds,
    )
    router.save_pretrained(path)
    (path / METRICS_FILE).write_text(json.dumps(summary.to_dict(), indent=2) + "\n", encoding="utf-8")
    (path / CARD_FILE).write_text(model_card(summary.to_dict()), encoding="utf-8")
    return summary


def _measure(
    rates_of: Callable[[Sequence[str]], npt.NDArray[np.float64]],
    name: str,
    held_out: Sequence[Record],
    strong: str,
    weak: str,
    draws: int,
) -> tuple[RouterEvaluation | None, dict[str, Estimate] | None, Comparison | None]:
    try:
        pair: PairScores = pair_scores(held_out, strong=strong, weak=weak)
    except DataError:
        return None, None, None
    rates = rates_of(pair.prompts)
    measured = evaluate_router(rates, pair.prompts, pair.strong, pair.weak, name=name, draws=draws)
    try:
        from routellm_core.routers import load_router

        default = load_router().win_rates(pair.prompts)
    except RouteLLMError:  # a build without the bundled checkpoint
        return measured, None, None
    bundled = evaluate_router(default, pair.prompts, pair.strong, pair.weak, draws=draws).metrics
    gain = None
    if np.isfinite(measured.metrics["apgr"].value):
        gain = compare_routers(rates, default, pair.strong, pair.weak, draws=draws)
    return measured, bundled, gain


def check_output(directory: str | Path, *, overwrite: bool) -> Path:
    """The directory to save to, with everything checked that could stop a finished training from being saved.

    Raises:
        ConfigurationError: A router is there already and `overwrite` is false, or it is a file.
        MissingExtraError: The model card cannot be written, because jinja2 is not installed.
    """
    check_templates()
    path = Path(directory)
    if path.exists() and not path.is_dir():
        raise ConfigurationError(f"{path} is a file: give a directory to save the router to")
    if (path / CONFIG_FILE).exists() and not overwrite:
        raise ConfigurationError(f"{path} holds a saved router already: give another directory, or --overwrite")
    return path
