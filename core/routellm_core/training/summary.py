"""The end of a training: the router is calibrated, measured and saved, and the summary says how it was trained."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from routellm_core.calibration.distribution import Calibration
from routellm_core.data.records import Record
from routellm_core.data.seen_prompts import SeenPrompts
from routellm_core.errors import ConfigurationError
from routellm_core.evaluation import Comparison, Estimate, RouterEvaluation
from routellm_core.evaluation.costs import Money
from routellm_core.report.files import REPORT_FILE, save_evaluation
from routellm_core.report.model_card import measured_on, metrics_table, model_card
from routellm_core.report.rendering import check_templates
from routellm_core.report.results import evaluate_priced
from routellm_core.routers.base import CONFIG_FILE, Router, WinRateArray
from routellm_core.training.proof import prove

METRICS_FILE = "metrics.json"
CARD_FILE = "README.md"
EVALUATION_FOLDER = "evaluation"
# On MMLU, the APGR of routers trained on so many rows differs from 0.5 by about as much as from draw to draw.
WITHIN_NOISE = 200


@dataclass(frozen=True)
class Trained:
    """A router that has been trained, and what it takes to prove and describe it.

    Attributes:
        router: The router.
        strong: The strong model.
        weak: The weak model.
        measure_on: Records for the metrics; those without both models are passed over.
        calibrate_on: Prompts for the calibration, at best such that the router was not trained on.
        rows: Rows in each part (``train``, ``validation``, ``held_out``), and ``skipped`` malformed ones.
        sources: Rows of each source (None: without a name).
        settings: What it was trained with; JSON values.
        unseen: Win rate of each of those prompts by a router that was not trained on it, to measure and calibrate by;
            None takes those of `router`.
        folds: Number of folds that `unseen` comes from; 0 where prompts were held out.
        trained_on: Fingerprints of the prompts that decided anything about it, those of early stopping included.
        calibration: Win rates to calibrate by, such as those of recent traffic; None takes those of `calibrate_on`.
    """

    router: Router
    strong: str
    weak: str
    measure_on: Sequence[Record]
    calibrate_on: Sequence[str]
    rows: Mapping[str, int]
    sources: Mapping[str | None, int]
    settings: Mapping[str, Any]
    unseen: Mapping[str, float] | None = None
    folds: int = 0
    trained_on: SeenPrompts | None = None
    calibration: WinRateArray | None = None

    def win_rates(self, prompts: Sequence[str]) -> WinRateArray:
        """Win rates (n,) of prompts, by routers that were not trained on them where `unseen` has them."""
        if self.unseen is None:
            return self.router.win_rates(prompts)
        return np.array([self.unseen[prompt] for prompt in prompts])


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
        result: What `evaluate_benchmark` says of the same prompts, with the verdict; None without any.
        report: The page that shows it; None without any.
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
    result: dict[str, Any] | None = None
    report: Path | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know before relying on the router."""
        rows = self.rows.get("train", 0)
        if rows >= WITHIN_NOISE:
            return ()
        return (
            f"It is trained on {rows} rows. Under about {WITHIN_NOISE}, the difference between routers, and between "
            "one of them and guessing, is within noise: label more before you rely on it.",
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON values: what metrics.json holds."""
        return {
            "router": self.router,
            "strong": self.strong,
            "weak": self.weak,
            "rows": self.rows,
            "sources": self.sources,
            "settings": self.settings,
            "notes": list(self.notes),
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
    trained: Trained,
    directory: str | Path,
    *,
    started: float,
    draws: int = 1000,
    money: Money | None = None,
    command: str = "",
) -> TrainingSummary:
    """Calibrate, measure and save a router: its directory is complete when this returns.

    Besides the router it holds calibration.json, metrics.json, README.md (the model card) and, where prompts were left
    to measure on, the folder evaluation with the verdict on them (results.json, report.html).

    Args:
        trained: The router and what it was trained on.
        directory: Where to save it.
        started: ``time.monotonic()`` at the start of the training.
        draws: Bootstrap draws of the intervals.
        money: Prices, for the verdict; costs and tokens of the records are used in any case.
        command: The command line, for the report.

    Raises:
        ConfigurationError: There is a price for one model of the pair, and no cost of the other.
    """
    path, router = Path(directory), trained.router
    win_rates = trained.win_rates(trained.calibrate_on) if trained.calibration is None else trained.calibration
    calibration = Calibration.from_win_rates(win_rates, router=router.name, fingerprint=router.fingerprint)
    router.calibration = calibration.condensed()
    router.trained_on = trained.trained_on
    strong, weak = trained.strong, trained.weak
    measured_on = f"{trained.folds}-fold cross-validation" if trained.folds else "held-out prompts"
    proof = prove(
        trained.win_rates,
        trained.measure_on,
        name=router.name,
        strong=strong,
        weak=weak,
        measured_on=measured_on,
        draws=draws,
    )
    result = None
    if proof is not None:
        result = evaluate_priced(
            proof.benchmark,
            {router.name: proof.win_rates},
            money=money,
            routers={router.name: router},
            command=command,
            sources={router.name: str(path)},
            draws=draws,
        )
    summary = TrainingSummary(
        router=router.name,
        strong=strong,
        weak=weak,
        directory=path,
        rows=dict(trained.rows),
        sources={str(name or "(not named)"): count for name, count in trained.sources.items()},
        settings=dict(trained.settings),
        seconds=time.monotonic() - started,
        evaluation=None if proof is None else proof.evaluation,
        bundled=None if proof is None else proof.bundled,
        gain=None if proof is None else proof.gain,
        folds=trained.folds,
        result=result,
        report=None if result is None else path / EVALUATION_FOLDER / REPORT_FILE,
    )
    router.save_pretrained(path)
    (path / METRICS_FILE).write_text(json.dumps(summary.to_dict(), indent=2) + "\n", encoding="utf-8")
    (path / CARD_FILE).write_text(model_card(summary.to_dict()), encoding="utf-8")
    if result is not None:
        save_evaluation([result], path / EVALUATION_FOLDER)
    return summary


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
