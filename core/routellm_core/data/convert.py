"""From scores to preferences: battles of all pairs, or the label of one pair."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import combinations
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from routellm_core.data.records import Battle, Outcome
from routellm_core.errors import ConfigurationError, DataError

if TYPE_CHECKING:
    from routellm_core.data.records import Winner

# The classes of the bert router, in the order of its outputs.
STRONG_WINS: Final = 0
TIE: Final = 1
WEAK_WINS: Final = 2


class PairLabel(NamedTuple):
    """What one record says about a pair of models.

    Attributes:
        prompt: The prompt.
        label: 0 if the strong model wins, 1 for a tie, 2 if the weak model wins.
        weight: Weight of the record.
        source: Its source.
    """

    prompt: str
    label: Literal[0, 1, 2]
    weight: float
    source: str | None


class PairScores(NamedTuple):
    """Prompts for which both models of a pair have a score.

    Attributes:
        prompts: n prompts.
        strong: (n,) scores of the strong model.
        weak: (n,) scores of the weak model.
    """

    prompts: list[str]
    strong: npt.NDArray[np.float64]
    weak: npt.NDArray[np.float64]


def outcomes_to_battles(
    records: Iterable[Battle | Outcome], *, pair: tuple[str, str] | None = None, tie_margin: float = 0.0
) -> Iterator[Battle]:
    """Turn scores into battles, record by record; battles pass through unchanged.

    Args:
        records: Outcomes, battles, or both; read once.
        pair: The two models to compare; the first becomes model_a of a battle made from an outcome. Records that lack
            one of them give no battle. None compares every pair of each outcome's models, in order of name.
        tie_margin: Scores that differ by at most this are a tie, in the unit of the scores.

    Yields:
        Battles with the id, source, weight, costs and tokens of their record.

    Raises:
        ConfigurationError: The margin is negative, or the pair names one model twice.
    """
    check_margin(tie_margin)
    if pair is not None and (len(pair) != 2 or pair[0] == pair[1]):
        raise ConfigurationError(f"pair={pair!r}: expected the names of two different models")
    # checked when called, not when first advanced
    return _battles(records, pair, tie_margin)


def _battles(records: Iterable[Battle | Outcome], pair: tuple[str, str] | None, tie_margin: float) -> Iterator[Battle]:
    for record in records:
        if isinstance(record, Battle):
            if pair is None or {record.model_a, record.model_b} == set(pair):
                yield record
            continue
        scores = record.scores
        pairs = combinations(sorted(scores), 2) if pair is None else [pair]
        for a, b in pairs:
            if a in scores and b in scores:
                # the parts have been validated already
                yield Battle.model_construct(
                    prompt=record.prompt,
                    id=record.id,
                    source=record.source,
                    weight=record.weight,
                    costs={model: record.costs[model] for model in (a, b) if model in record.costs},
                    tokens={model: record.tokens[model] for model in (a, b) if model in record.tokens},
                    model_a=a,
                    model_b=b,
                    winner=winner_of(scores[a] - scores[b], tie_margin),
                )


def winner_of(difference: float, tie_margin: float) -> Winner:
    """Who won when model_a scored `difference` more than model_b."""
    if abs(difference) <= tie_margin:
        return "tie"
    return "model_a" if difference > 0 else "model_b"


def label_pair(
    records: Iterable[Battle | Outcome],
    *,
    strong: str | Collection[str],
    weak: str | Collection[str],
    tie_margin: float = 0.0,
) -> Iterator[PairLabel]:
    """Label each record by what it says about the strong and the weak model; skip records that say nothing.

    Args:
        records: Battles, outcomes, or both; read once.
        strong: Name of the strong model, or of several that stand for it (a tier): battles of one pair are rare.
        weak: Name of the weak model, or of several.
        tie_margin: For outcomes: scores that differ by at most this are a tie.

    Yields:
        One label per battle; for an outcome, one for each combination of a strong and a weak model that it scores.

    Raises:
        ConfigurationError: The margin is negative, a side has no name, or a name is on both sides.
    """
    check_margin(tie_margin)
    strongs = (strong,) if isinstance(strong, str) else tuple(strong)
    weaks = (weak,) if isinstance(weak, str) else tuple(weak)
    both = set(strongs) & set(weaks)
    if not strongs or not weaks or both:
        raise ConfigurationError(
            f"strong={strong!r}, weak={weak!r}: expected at least one model on each side and none on both"
        )
    return _labels(records, strongs, weaks, tie_margin)


def _labels(
    records: Iterable[Battle | Outcome], strongs: tuple[str, ...], weaks: tuple[str, ...], tie_margin: float
) -> Iterator[PairLabel]:
    values: dict[str, Literal[0, 1, 2]] = {"model_a": STRONG_WINS, "tie": TIE, "model_b": WEAK_WINS}
    turned: dict[str, Literal[0, 1, 2]] = {"model_b": STRONG_WINS, "tie": TIE, "model_a": WEAK_WINS}
    for record in records:
        if isinstance(record, Battle):
            if record.model_a in strongs and record.model_b in weaks:
                yield PairLabel(record.prompt, values[record.winner], record.weight, record.source)
            elif record.model_b in strongs and record.model_a in weaks:
                yield PairLabel(record.prompt, turned[record.winner], record.weight, record.source)
            continue
        for s in strongs:
            for w in weaks:
                if s in record.scores and w in record.scores:
                    winner = winner_of(record.scores[s] - record.scores[w], tie_margin)
                    yield PairLabel(record.prompt, values[winner], record.weight, record.source)


def pair_scores(records: Iterable[Battle | Outcome], *, strong: str, weak: str) -> PairScores:
    """Return the pair's scores, row by row; a battle scores 1 for the winner and 0 for the loser, a tie 0.5 each.

    Raises:
        DataError: No record scores both models; the message names the models in the data.
    """
    prompts: list[str] = []
    rows: list[tuple[float, float]] = []
    seen: dict[str, None] = {}
    for record in records:
        scores = scores_of(record)
        if strong in scores and weak in scores:
            prompts.append(record.prompt)
            rows.append((scores[strong], scores[weak]))
        else:
            seen.update(dict.fromkeys(scores))
    if not rows:
        raise DataError(no_pair(strong, weak, seen))
    matrix = np.array(rows, dtype=np.float64)
    return PairScores(prompts, matrix[:, 0], matrix[:, 1])


def scores_of(record: Battle | Outcome) -> dict[str, float]:
    """Return the models' scores; a battle scores 1 for the winner and 0 for the loser, a tie 0.5 each."""
    if isinstance(record, Outcome):
        return record.scores
    a = {"model_a": 1.0, "tie": 0.5, "model_b": 0.0}[record.winner]
    return {record.model_a: a, record.model_b: 1.0 - a}


def no_pair(strong: str, weak: str, models: Collection[str]) -> str:
    """Return the message for data without a record of the pair."""
    names = sorted(models)
    some = ", ".join(names[:12]) + (f", and {len(names) - 12} more" if len(names) > 12 else "")
    return f"no record compares strong={strong!r} with weak={weak!r}; models in the data: {some or 'none'}"


def check_margin(tie_margin: float) -> None:
    """Raise a `ConfigurationError` unless the margin is a finite number >= 0."""
    if isinstance(tie_margin, bool) or not isinstance(tie_margin, int | float) or not 0.0 <= tie_margin < np.inf:
        raise ConfigurationError(f"tie_margin={tie_margin!r}: expected a number >= 0, in the unit of the scores")
