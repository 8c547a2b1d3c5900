"""How a trained router is proved: which prompts it may learn from, and how it does on those that it never saw.

Every trainer takes its parts from here. `Split` holds prompts out, as a stream; `TrainingData` does so with records in
memory. `out_of_fold_win_rates` scores every prompt by a router that was trained without it. `prove` compares win rates
on such prompts with the bundled router's. `finish_training`, in ``summary.py``, calibrates by them and saves it all.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

import numpy as np

from routellm_core.data.contamination import prompt_key
from routellm_core.data.convert import no_pair, scores_of
from routellm_core.data.records import Outcome, Record
from routellm_core.errors import ConfigurationError, DataError, RouteLLMError
from routellm_core.evaluation import Benchmark, Comparison, Estimate, RouterEvaluation, compare_routers, evaluate_router
from routellm_core.evaluation.benchmarks import benchmark_of
from routellm_core.routers import load_router
from routellm_core.routers.base import WinRateArray

Part: TypeAlias = Literal["train", "validation", "held_out"]


@dataclass(frozen=True)
class Split:
    """Which prompts are for training, for early stopping, and for the metrics.

    A prompt's part follows from its text and the seed alone. So repeats of a prompt (but for case, punctuation and
    spacing) stay together, files of any size can be split as a stream, and a run that resumes splits as before.

    Attributes:
        validation: Share for early stopping.
        held_out: Share for the metrics.
        seed: Another seed gives another split.

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

    def check_parts(self, sizes: Mapping[Part, float], rows: int) -> None:
        """Check that no part that is asked for stayed empty.

        Args:
            sizes: Rows of each part, or their weight.
            rows: Rows in all, for the message.

        Raises:
            DataError: A part is empty.
        """
        shares: dict[Part, float] = {"train": 1.0, "validation": self.validation, "held_out": self.held_out}
        for part, share in shares.items():
            if share and not sizes[part]:
                raise DataError(f"{rows} rows have too few distinct prompts to split: no {part.replace('_', '-')} part")


def fold_of(name: str, folds: int, seed: int) -> int:
    """The fold, 0 to folds - 1, of a prompt or another name; equal ones (but for case and the like) share a fold."""
    return int(_position(name, seed) * folds)


def _position(prompt: str, seed: int) -> float:
    """A number in [0, 1) that follows from the prompt and the seed."""
    digest = hashlib.blake2b(prompt_key(prompt), digest_size=8, salt=(seed % 2**63).to_bytes(8, "big")).digest()
    # 53 bits: more would round up to 1
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def distinct_prompts(records: Iterable[Record]) -> list[str]:
    """The prompts of records, each once (but for case, punctuation and spacing), in order."""
    return list({prompt_key(record.prompt): record.prompt for record in records}.values())


@dataclass
class TrainingData:
    """Records in memory, split by prompt.

    Attributes:
        train: Records to learn from.
        validation: Records for early stopping.
        held_out: Records for the metrics.
        sources: Rows of each source (None: without a name).
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
            ConfigurationError: A source in `source_weights` does not occur, or its weight is not a number >= 0.
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
        sizes: dict[Part, float] = {
            "train": len(data.train),
            "validation": len(data.validation),
            "held_out": len(data.held_out),
        }
        split.check_parts(sizes, sum(data.sources.values()))
        return data


def check_sources(weights: Mapping[str, float] | None, sources: Mapping[str | None, int]) -> None:
    """Raise a `ConfigurationError` unless every source with a weight occurs, and its weight is a number >= 0."""
    for name, value in (weights or {}).items():
        if not 0.0 <= value < float("inf"):
            raise ConfigurationError(f"weight {value} of source {name!r}: expected a number >= 0")
        if name not in sources:
            known = ", ".join(sorted(map(str, sources)))
            raise ConfigurationError(f"source {name!r} to weight does not occur in the data; it has: {known}")


class PredictsWinRates(Protocol):
    """What `out_of_fold_win_rates` needs of a router."""

    def win_rates(self, prompts: Sequence[str]) -> WinRateArray:
        """Win rates (n,) of n prompts."""


def out_of_fold_win_rates(
    fit: Callable[[list[Record]], PredictsWinRates],
    records: Sequence[Record],
    *,
    folds: int,
    seed: int = 0,
    groups: Sequence[str] | None = None,
) -> dict[str, float]:
    """Cross-validate: the win rate of every prompt by a router that was trained on the other folds.

    Args:
        fit: Trains a router on records.
        records: The records; repeats of a prompt (but for case, punctuation and spacing) are in one fold.
        folds: Number of folds, >= 2.
        seed: Another seed gives other folds.
        groups: A name for each record, such as the conversation that it is from: records of one name are in one fold.
            None groups by prompt alone.

    Returns:
        Win rate by prompt.

    Raises:
        DataError: A prompt is in two groups, so that some router would be scored on a prompt that it has seen.
    """
    names = [record.prompt for record in records] if groups is None else groups
    if len(names) != len(records):
        raise DataError(f"groups has {len(names)} names for {len(records)} records; give one for each record")
    fold = [fold_of(name, folds, seed) for name in names]
    first: dict[bytes, int] = {}
    for i, record in enumerate(records if groups is not None else ()):
        if fold[first.setdefault(prompt_key(record.prompt), i)] != fold[i]:
            raise DataError(
                f"records[{i}]: its prompt is also in another group; give repeats of a prompt one group, or remove them"
            )
    win_rates: dict[str, float] = {}
    for k in range(folds):
        prompts = list({record.prompt: None for record, f in zip(records, fold, strict=True) if f == k})
        if prompts:
            router = fit([record for record, f in zip(records, fold, strict=True) if f != k])
            win_rates.update(zip(prompts, router.win_rates(prompts).tolist(), strict=True))
    return win_rates


@dataclass(frozen=True)
class Proof:
    """How a router did on prompts that it was not trained on, beside the bundled router.

    Attributes:
        benchmark: The prompts that it was measured on, with the pair's scores.
        win_rates: Its win rates (n,) of these prompts.
        evaluation: Its metrics with the baselines.
        bundled: Metrics of the bundled router on the same prompts; None in a build without it.
        gain: APGR of this router minus the bundled one's, paired; None where there is no such number.
    """

    benchmark: Benchmark
    win_rates: WinRateArray
    evaluation: RouterEvaluation
    bundled: dict[str, Estimate] | None = None
    gain: Comparison | None = None


def prove(
    win_rates: Callable[[Sequence[str]], WinRateArray],
    records: Sequence[Record],
    *,
    name: str,
    strong: str,
    weak: str,
    measured_on: str = "unseen prompts",
    draws: int = 1000,
) -> Proof | None:
    """Measure win rates on records that they were not learned from.

    Args:
        win_rates: Returns the win rates (n,) of n prompts: ``router.win_rates``, or a look-up of out-of-fold ones.
        records: Outcomes or battles; those without both models are passed over.
        name: Name of the router in tables.
        strong: The strong model.
        weak: The weak model.
        measured_on: What the prompts are, as a report names them.
        draws: Bootstrap draws of the intervals.

    Returns:
        The proof; None if no record compares the pair.
    """
    kept = [record for record in records if {strong, weak} <= scores_of(record).keys()]
    if not kept:
        return None
    benchmark = benchmark_of(kept, name=measured_on, strong=strong, weak=weak)
    scores = benchmark.strong_scores, benchmark.weak_scores
    rates = win_rates(benchmark.prompts)
    evaluation = evaluate_router(rates, benchmark.prompts, *scores, name=name, draws=draws)
    try:
        default = load_router().win_rates(benchmark.prompts)
    except RouteLLMError:  # a build without the bundled checkpoint
        return Proof(benchmark, rates, evaluation)
    bundled = evaluate_router(default, benchmark.prompts, *scores, draws=draws).metrics
    gain = None
    if np.isfinite(evaluation.metrics["apgr"].value):
        gain = compare_routers(rates, default, *scores, draws=draws)
    return Proof(benchmark, rates, evaluation, bundled, gain)
