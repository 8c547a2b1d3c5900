"""Bradley-Terry ratings of models from battles with ties: weighted, sparse, solved to the optimum.

P(i beats j) = 1 / (1 + 10^((R_j - R_i) / 400)); a tie counts as half a win for each. Internally, ratings are theta in
natural units (R = 1000 + 400 / ln 10 * theta), and all battles collapse into one table of weighted wins, so the cost of
a fit hardly depends on their number.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from routellm_core.errors import ConfigurationError, DataError, RouterError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]
SameModel = Literal["ignore", "routellm"]
Name = TypeVar("Name", bound=Hashable)

RATING_SCALE = 400.0 / math.log(10.0)
BASE_RATING = 1000.0
# By the convention of the published Arena ratings, this model is rated 1082 if it took part.
ARENA_ANCHOR = ("llama-2-70b-chat", 1082.0)
WINNERS: Mapping[Any, float] = {"model_a": 1.0, "model_b": 0.0, "tie": 0.5, "tie (bothbad)": 0.5}

_MAX_STEPS = 500
# Newton decrement over total weight below which a step is the last one. That step is still taken and squares the error.
# A bound on the step itself would drown in rounding errors if weights of very different size leave a flat direction.
_TOLERANCE = 1e-18
# Below this value, a decrement that no longer falls is rounding error: tables whose weights differ by 1e9 end this way.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class EncodedBattles:
    """Battles as integer columns.

    Attributes:
        models: The p model names, in order of first appearance: first all of model_a, then model_b.
        first: (n,) index of model_a.
        second: (n,) index of model_b.
        score: (n,) score of model_a: 1 for a win, 0.5 for a tie, 0 for a loss.
    """

    models: list[Any]
    first: IntArray
    second: IntArray
    score: FloatArray


def encode_battles(battles: Sequence[tuple[Hashable, Hashable, str]]) -> EncodedBattles:
    """Turn (model_a, model_b, winner) records into columns.

    Args:
        battles: n >= 1 records; winner is "model_a", "model_b", "tie" or "tie (bothbad)".

    Raises:
        DataError: There are no battles, a record is not three values, or a winner is unknown; the message names it.
    """
    try:
        column_a, column_b, winners = zip(*battles, strict=True)
    except (TypeError, ValueError):
        for i, battle in enumerate(battles):
            if isinstance(battle, str) or not hasattr(battle, "__len__") or len(battle) != 3:
                raise DataError(f"battles[{i}]={battle!r:.80}: expected (model_a, model_b, winner)") from None
        raise DataError("battles is empty: pass at least one (model_a, model_b, winner)") from None
    try:
        score = np.fromiter(map(WINNERS.__getitem__, winners), np.float64, len(winners))
    except (KeyError, TypeError):
        i = next(i for i, w in enumerate(winners) if not isinstance(w, str) or w not in WINNERS)
        raise DataError(f"battles[{i}] has winner={winners[i]!r:.80}; expected one of {', '.join(WINNERS)}") from None
    index = {name: i for i, name in enumerate(dict.fromkeys(column_a) | dict.fromkeys(column_b))}
    return EncodedBattles(
        models=list(index),
        first=np.fromiter(map(index.__getitem__, column_a), np.intp, len(column_a)),
        second=np.fromiter(map(index.__getitem__, column_b), np.intp, len(column_b)),
        score=score,
    )


def bradley_terry_ratings(
    battles: Sequence[tuple[Name, Name, str]] | EncodedBattles,
    weights: npt.ArrayLike | None = None,
    *,
    same_model: SameModel = "ignore",
    anchor: tuple[Any, float] | None = ARENA_ANCHOR,
) -> dict[Name, float]:
    """Maximum-likelihood ratings on the Elo scale, best first; equal ratings in order of name.

    The mean rating is 1000 unless `anchor` took part. If some model never won or never lost (more precisely, if the win
    graph is not strongly connected), the maximum is at infinity; each model then gets one extra tie, with the weight of
    an average battle, against a player rated 1000. All ratings are then finite and keep their order.

    Args:
        battles: (model_a, model_b, winner) records, or the result of `encode_battles`.
        weights: (n,) finite, non-negative weight of each battle; None weighs each 1.
        same_model: "ignore" drops battles of a model against itself, which carry no information; "routellm" treats them
            as the authors' package does, as battles in which model_b's result counts against a player rated 1000.
        anchor: (model, rating); all ratings are shifted so that this model, if it took part, has this rating. None
            does not shift them.

    Returns:
        Rating of each model.

    Raises:
        DataError: A record is malformed, the weights are invalid, or groups of models never met, so that their ratings
            cannot be compared.
        ConfigurationError: `same_model` is unknown.
    """
    if same_model not in ("ignore", "routellm"):
        raise ConfigurationError(f"same_model={same_model!r}: expected 'ignore' or 'routellm'")
    coded = battles if isinstance(battles, EncodedBattles) else encode_battles(battles)
    n, p = len(coded.first), len(coded.models)
    w = np.ones(n) if weights is None else np.asarray(weights, dtype=np.float64)
    if w.shape != (n,) or not np.isfinite(w).all() or (w < 0.0).any() or not w.any():
        raise DataError(f"weights has shape {w.shape}: expected {n} finite numbers >= 0, one per battle, not all zero")
    wins = np.zeros((p, p))
    wins += np.bincount(coded.first * p + coded.second, w * coded.score, p * p).reshape(p, p)
    wins += np.bincount(coded.second * p + coded.first, w * (1.0 - coded.score), p * p).reshape(p, p)
    fixed = np.zeros((2, p))
    if same_model == "routellm":
        # The package writes +x and then -x into the same cell of its design matrix. What remains is a player with the
        # sign of model_b against no opponent, that is, against a rating of zero.
        own = coded.first == coded.second
        fixed[0] = np.bincount(coded.first[own], (w * (1.0 - coded.score))[own], p)
        fixed[1] = np.bincount(coded.first[own], (w * coded.score)[own], p)
    np.fill_diagonal(wins, 0.0)
    groups = connected_groups(wins, fixed)
    if len(groups) > 1:
        names = "; ".join(", ".join(str(coded.models[i]) for i in group[:5]) for group in groups[:5])
        raise DataError(
            f"battles fall into {len(groups)} groups of models that never met, directly or through others ({names}): "
            "their ratings cannot be compared; drop the smaller groups or add battles between them"
        )
    if not is_bounded(wins, fixed):
        fixed = fixed + 0.5 * (w.sum() / np.count_nonzero(w))
    theta = solve_bradley_terry(wins[None], fixed[None])[0]
    if not fixed.any():
        theta = theta - theta.mean()
    ratings = dict(zip(coded.models, (BASE_RATING + RATING_SCALE * theta).tolist(), strict=True))
    if anchor is not None and anchor[0] in ratings:
        shift = anchor[1] - ratings[anchor[0]]
        ratings = {name: rating + shift for name, rating in ratings.items()}
    return dict(sorted(ratings.items(), key=lambda item: (-item[1], str(item[0]))))


def solve_bradley_terry(wins: FloatArray, fixed: FloatArray, start: FloatArray | None = None) -> FloatArray:
    """Maximise the Bradley-Terry likelihood of a batch of win tables by a damped Newton method.

    The step is shortened by log(1 + r) / r, where r is its range. For a generalised self-concordant function such as
    this one, every step is then an ascent without a line search (Sun and Tran-Dinh 2019, arXiv 1703.04599), and a full
    Newton step near the optimum. The result for a table does not depend on the rest of its batch, bit for bit.

    Args:
        wins: (b, p, p) weighted wins of i over j, a tie being half a win for each; diagonals are ignored.
        fixed: (b, 2, p) weighted wins and losses of each model against a player of theta 0. If all are zero for a
            table, only differences of its theta are meaningful.
        start: (p,) first guess, shared by all tables; None starts from zeros.

    Returns:
        (b, p) theta. The maximum must be finite (`is_bounded`).

    Raises:
        RouterError: The iteration does not converge: the maximum of a table is at infinity.
    """
    b, p = wins.shape[:2]
    games = wins + wins.transpose(0, 2, 1)
    diagonal = np.arange(p)
    games[:, diagonal, diagonal] = 0.0
    scored = np.where(np.eye(p, dtype=bool), 0.0, wins).sum(axis=2) + fixed[:, 0]
    extra = fixed.sum(axis=1)
    total = scored.sum(axis=1) + extra.sum(axis=1)
    free = ~(extra > 0.0).any(axis=1)
    theta = np.zeros((b, p)) if start is None else np.tile(start, (b, 1))
    if p < 2 and free.any():
        return theta
    active = np.arange(b)
    before = np.full(b, np.inf)
    for _ in range(_MAX_STEPS):
        now = theta[active]
        chance = _logistic(now[:, :, None] - now[:, None, :])
        expected = games[active] * chance
        chance_fixed = _logistic(now)
        gradient = scored[active] - expected.sum(axis=2) - extra[active] * chance_fixed
        curvature = expected * (1.0 - chance)
        hessian = -curvature
        row = curvature.sum(axis=2)
        hessian[:, diagonal, diagonal] = row + extra[active] * chance_fixed * (1.0 - chance_fixed)
        # Without a fixed player the direction (1, ..., 1) is flat: give it the curvature of an average model.
        hessian += (free[active] * row.mean(axis=1) / p)[:, None, None]
        try:
            step = np.linalg.solve(hessian, gradient[:, :, None])[:, :, 0]
        except np.linalg.LinAlgError:
            break
        reach = np.abs(step).max(axis=1)
        gain = (gradient * step).sum(axis=1)
        theta[active] += step * (np.log1p(2.0 * reach) / np.maximum(2.0 * reach, 1e-300))[:, None]
        if not np.isfinite(reach).all():
            break
        share = gain / total[active]
        done = (share <= _TOLERANCE) | ((share <= _ROUNDING) & (share >= before[active]))
        before[active] = share
        active = active[~done]
        if not len(active):
            return theta
    raise RouterError(
        "Bradley-Terry ratings did not converge: the battles, or their weights, leave a rating without a finite optimum"
    )


def _logistic(x: FloatArray) -> FloatArray:
    # exp of a negative number only: no overflow, so no floating-point warning.
    e = np.exp(-np.abs(x))
    return np.where(x >= 0.0, 1.0, e) / (1.0 + e)


def connected_groups(wins: FloatArray, fixed: FloatArray) -> list[list[int]]:
    """Groups of models connected by battles, directly or through others (or the fixed player), largest first."""
    p = len(wins)
    met = np.zeros((p + 1, p + 1), dtype=bool)
    met[:p, :p] = (wins + wins.T) > 0.0
    met[p, :p] = met[:p, p] = fixed.sum(axis=0) > 0.0
    left, groups = set(range(p)), []
    while left:
        group = _reached(met, min(left)) & left
        groups.append(sorted(group))
        left -= group
    return sorted(groups, key=lambda group: (-len(group), group))


def is_bounded(wins: FloatArray, fixed: FloatArray) -> bool:
    """Whether the maximum is finite: each model beats each other one, directly or through others (Ford 1957)."""
    p = len(wins)
    beats = np.zeros((p + 1, p + 1), dtype=bool)
    beats[:p, :p] = wins > 0.0
    beats[:p, p], beats[p, :p] = fixed[0] > 0.0, fixed[1] > 0.0
    every = set(range(p + 1)) if fixed.any() else set(range(p))
    return _reached(beats, 0) >= every and _reached(beats.T, 0) >= every


def _reached(edges: npt.NDArray[np.bool_], start: int) -> set[int]:
    seen = np.zeros(len(edges), dtype=bool)
    seen[start] = True
    front = seen
    while front.any():
        front = edges[front].any(axis=0) & ~seen
        seen = seen | front
    return set(np.flatnonzero(seen).tolist())
