"""Results of an evaluation as one dict of JSON values, and the rows of its table.

Everything that is shown (terminal, Markdown, figures, HTML page) is drawn from the dict alone, so it can be drawn again
from the saved JSON.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from routellm_core.calibration.distribution import Calibration
from routellm_core.calibration.targets import share_interval
from routellm_core.errors import ConfigurationError, DataError
from routellm_core.evaluation.benchmarks import PUBLISHED, Benchmark
from routellm_core.evaluation.router_evaluation import evaluate_router
from routellm_core.evaluation.verdict import is_share, threshold_text, verdict
from routellm_core.statistics.intervals import Estimate, compare_routers, curve_band, number_text, shown_digits
from routellm_core.statistics.metrics import Floats, checked_gap, prompt_length, static_hull

FORMAT = 2
HEADER = ("router", "APGR", "CPT(50%)", "CPT(80%)", "saving at CPT(50%)")
PAPER = "paper: "
COST_LABEL = "cost of 1,000 calls"
_BASELINES = {"random": "random routing", "prompt_length": "prompt length", "oracle": "oracle"}
_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def evaluate_benchmark(
    benchmark: Benchmark,
    win_rates: Mapping[str, npt.ArrayLike],
    *,
    strong_cost: npt.ArrayLike | None = None,
    weak_cost: npt.ArrayLike | None = None,
    other_costs: Mapping[str, float] | None = None,
    sources: Mapping[str, str] | None = None,
    draws: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Any]:
    """Evaluate routers on one benchmark: everything that the table, the figure and the page show.

    Args:
        benchmark: The prompts with their scores.
        win_rates: Name of each router -> its win rates (n,) of the prompts.
        strong_cost: Mean cost of a call of the strong model, or (n,); None counts strong calls alone.
        weak_cost: The same of the weak model.
        other_costs: Costs of further models of the benchmark, which then stand as alternatives in the verdict.
        sources: What `load_router` takes for each router, for the line that says how to use it.
        draws: Bootstrap draws.
        confidence: Level of the intervals.
        seed: Seed of the draws.

    Returns:
        JSON values; the key ``"format"`` names the version of this form.

    Raises:
        DataError: Malformed win rates or costs.
        ConfigurationError: The strong model is not dearer than the weak one, or the cost of one is missing.
    """
    strong, weak = benchmark.strong_scores, benchmark.weak_scores
    if (strong_cost is None) != (weak_cost is None) or (other_costs and strong_cost is None):
        further = ", ".join(other_costs or {})
        raise ConfigurationError(
            f"strong_cost={strong_cost!r:.80}, weak_cost={weak_cost!r:.80}, other_costs of {further or 'none'}: costs "
            "need those of both models"
        )
    priced = strong_cost is not None
    costs: dict[str, Any] = {"strong_cost": strong_cost, "weak_cost": weak_cost} if priced else {}
    others = {m: (benchmark.scores[m], cost) for m, cost in (other_costs or {}).items() if m in benchmark.scores}
    models = _models(benchmark, strong_cost, weak_cost, other_costs or {})
    # without prices a call of the strong model costs 1 and one of the weak model nothing
    paid = [np.broadcast_to(np.asarray(c, dtype=np.float64), strong.shape) for c in (costs.values() or (1.0, 0.0))]
    alternatives = {"strong": (paid[0].mean(), strong.mean()), "weak": (paid[1].mean(), weak.mean())}
    alternatives |= {m: (cost, scores.mean()) for m, (scores, cost) in others.items()}
    hull = static_hull(list(alternatives.values()))
    shares = np.linspace(0.0, 1.0, 41)
    routers = []
    for name, given in win_rates.items():
        rates = np.asarray(given, dtype=np.float64)
        found = evaluate_router(
            rates, benchmark.prompts, strong, weak, name=name, draws=draws, confidence=confidence, seed=seed
        )
        judged = verdict(
            rates, strong, weak, **costs, others=others, strong=benchmark.strong, weak=benchmark.weak,
            confidence=confidence, draws=draws, seed=seed,
        )  # fmt: skip
        low, high = curve_band(rates, strong, weak, shares, confidence=confidence, seed=seed)
        line = found.weak_quality + shares * (found.strong_quality - found.weak_quality)
        entry = found.to_dict()
        baselines = entry.pop("baselines")
        entry["band"] = {
            "strong_fraction": shares.tolist(),
            "low": (line + low).tolist(),
            "high": (line + high).tolist(),
        }
        fitted = Calibration.from_win_rates(rates)
        targets = [*((share, fitted.threshold(strong_fraction=share)) for share in _SHARES), (None, judged.threshold)]
        *asked, own = (
            _threshold_row(
                rates, t, share_interval(fitted, t, confidence=confidence, seed=seed), strong, weak, paid, hull
            )
            | {"wanted": wanted}
            for wanted, t in targets
        )
        rows = asked if any(row["threshold"] == own["threshold"] for row in asked) else [*asked, own]
        entry["thresholds"] = sorted(rows, key=lambda row: -row["threshold"])
        entry["source"] = (sources or {}).get(name)
        entry["verdict"] = judged.to_dict() | {"threshold": own["threshold"]}
        routers.append(entry)
    plain: dict[str, Any] = _plain(
        {
            "format": FORMAT,
            "benchmark": benchmark.name,
            "title": benchmark.title,
            "split": benchmark.split,
            "count": len(benchmark.prompts),
            "contaminated_left_out": benchmark.dropped,
            "strong": benchmark.strong,
            "weak": benchmark.weak,
            "strong_quality": float(strong.mean()),
            "weak_quality": float(weak.mean()),
            "confidence": confidence,
            "draws": draws,
            "seed": seed,
            "priced": priced,
            "models": models,
            "shares": all(is_share(benchmark.scores[model["name"]]) for model in models),
            "routers": routers,
            "baselines": baselines if routers else {},
            "comparisons": _comparisons(benchmark, win_rates, draws, confidence, seed),
            "published": {
                name: {"cpt_50": c50, "cpt_80": c80, "apgr": area}
                for name, (c50, c80, area) in PUBLISHED.get(benchmark.name, {}).items()
            },
        }
    )
    return plain


def _models(
    benchmark: Benchmark,
    strong_cost: npt.ArrayLike | None,
    weak_cost: npt.ArrayLike | None,
    other_costs: Mapping[str, float],
) -> list[dict[str, Any]]:
    """Every model with scores: its mean score, its mean cost of a call where that is known, and its part."""
    known = {benchmark.strong: strong_cost, benchmark.weak: weak_cost, **other_costs}
    parts = {benchmark.strong: "strong", benchmark.weak: "weak"}
    return [
        {
            "name": name,
            "role": parts.get(name, "other"),
            "quality": float(benchmark.scores[name].mean()),
            "cost": None if known.get(name) is None else float(np.mean(np.asarray(known[name], dtype=np.float64))),
        }
        for name in sorted(benchmark.scores, key=lambda n: ("strong", "weak", "other").index(parts.get(n, "other")))
    ]


def _comparisons(
    benchmark: Benchmark, win_rates: Mapping[str, npt.ArrayLike], draws: int, confidence: float, seed: int
) -> list[dict[str, Any]]:
    """Each router against those after it, and against the baseline that costs nothing to run."""
    strong, weak = benchmark.strong_scores, benchmark.weak_scores
    try:
        checked_gap(strong, weak)
    except DataError:
        return []  # no gap, no APGR; the notes of each router say so
    plain_lengths = {_BASELINES["prompt_length"]: prompt_length(benchmark.prompts)}
    found = []
    for (a, first), (b, second) in combinations([*win_rates.items(), *plain_lengths.items()], 2):
        c = compare_routers(first, second, strong, weak, draws=draws, confidence=confidence, seed=seed)
        pair = {"first": a, "second": b, "metric": c.metric, "difference": c.difference.to_dict()}
        found.append({**pair, "p_value": c.p_value})
    return found


def _threshold_row(
    rates: Floats,
    threshold: float,
    share: Estimate,
    strong: Floats,
    weak: Floats,
    paid: Sequence[Floats],
    hull: tuple[Floats, Floats],
) -> dict[str, Any]:
    """What one threshold takes and gives on these prompts."""
    chosen = rates >= threshold
    quality, cost = float(np.where(chosen, strong, weak).mean()), float(np.where(chosen, *paid).mean())
    gap = float(strong.mean() - weak.mean())
    return {
        "threshold": float(threshold_text(threshold, rates)),
        "strong_fraction": share.to_dict(),
        "quality": quality,
        "over_mix": quality - float(np.interp(cost, *hull)),
        "pgr": (quality - float(weak.mean())) / gap if gap > 0 else None,
        "cost": cost,
        "saving_vs_strong": 1.0 - cost / float(paid[0].mean()),
    }


def table_rows(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The rows of the one table, as `HEADER` names its columns; the published results come last."""
    rows: list[tuple[str, ...]] = []
    entries = [(r["name"], r["metrics"]) for r in result["routers"]]
    entries += [(_BASELINES.get(k, k), m) for k, m in result["baselines"].items()]
    for name, metrics in entries:
        rows.append(
            (
                name,
                _interval(metrics["apgr"], "{:.3f}"),
                _interval(metrics["cpt_50"], "{:.1%}"),
                _interval(metrics["cpt_80"], "{:.1%}"),
                _interval(metrics["saving_50"], "{:.2f}×"),
            )
        )
    for name, found in result["published"].items():
        saving = f"{0.5 / found['cpt_50']:.2f}×"
        rows.append(
            (f"{PAPER}{name}", f"{found['apgr']:.3f}", f"{found['cpt_50']:.1%}", f"{found['cpt_80']:.1%}", saving)
        )
    return rows


def _interval(found: Mapping[str, float | None], form: str) -> str:
    if found["value"] is None:
        return "–"
    text = form.format(found["value"])
    if found["low"] is None or found["high"] is None:
        return text
    return f"{text} [{form.format(found['low'])}, {form.format(found['high'])}]"


def markdown_table(result: Mapping[str, Any]) -> str:
    """`table_rows` as a Markdown table."""
    lines = ["| " + " | ".join(HEADER) + " |", "|---|" + "---:|" * (len(HEADER) - 1)]
    lines += ["| " + " | ".join(row) + " |" for row in table_rows(result)]
    return "\n".join(lines)


def alternatives(
    result: Mapping[str, Any], router: Mapping[str, Any]
) -> list[tuple[str, str, str, tuple[str, str, str]]]:
    """What the verdict compares the routed policy with, the policy itself first.

    Returns:
        Rows of texts: name, mean score, cost of 1,000 calls (without prices: strong calls), and of the routed score
        minus this one value, low and high, in `gap_unit` (empty for the policy itself).
    """
    found = router["verdict"]
    strong, weak = result["models"][:2]
    share, quality = found["measured_at"]["value"], found["quality"]["value"]
    # without prices costs are counted in strong calls
    dear, cheap = (strong["cost"], weak["cost"]) if result["priced"] else (1.0, 0.0)
    paid = (1.0 - found["saving_vs_strong"]["value"]) * dear
    differences = found["differences"]
    rows: list[tuple[str, float, float, Mapping[str, float] | None]] = [
        (f"routed, {share:.0%} strong calls", quality, paid, None),
        (f"always {weak['name']}", weak["quality"], cheap, differences["always_weak"]),
        (f"always {strong['name']}", strong["quality"], dear, differences["always_strong"]),
    ]
    for model in result["models"]:
        if model["role"] == "other" and model["cost"] is not None:
            best = ", the best single model" if model["name"] == found["best_single"] else ""
            name = f"always {model['name']}"
            rows.append((f"{name}{best}", model["quality"], model["cost"], differences[name]))
    rows.append(("static mix of the same cost", quality - found["gain"]["value"], paid, found["gain"]))
    costs = [row[2] for row in rows]
    spent = cost_texts([1000 * c for c in costs]) if result["priced"] else [f"{c:.0%}" for c in costs]

    def minus(difference: Mapping[str, float] | None) -> tuple[str, str, str]:
        if difference is None:
            return ("", "", "")
        value, low, high = (gap_text(result, difference[end]) for end in ("value", "low", "high"))
        return value, low, high

    return [
        (name, score_text(result, score), cost, minus(difference))
        for (name, score, _, difference), cost in zip(rows, spent, strict=True)
    ]


def alternatives_header(result: Mapping[str, Any]) -> tuple[str, ...]:
    """The columns of `alternatives`."""
    spent = COST_LABEL if result["priced"] else "strong calls"
    return "policy", "mean score", spent, with_gap_unit(result, "routed minus this")


def notes_of(router: Mapping[str, Any]) -> list[str]:
    """What a reader must know of a router's numbers and of its verdict, each once."""
    return list(dict.fromkeys((*router["notes"], *router["verdict"]["notes"])))


def use_text(router: Mapping[str, Any]) -> str | None:
    """The policy to use in one line of Python, or None where the verdict is not that routing gains."""
    if router["verdict"]["outcome"] != "gains":
        return None
    source = router.get("source")
    load = "router" if source is None else "load_router()" if source == "mf" else f"load_router({source!r})"
    return f"RoutingPolicy({load}, threshold={number_text(router['verdict']['threshold'])})"


def threshold_cost(result: Mapping[str, Any], router: Mapping[str, Any]) -> str:
    """What 1,000 calls cost at the threshold of the verdict, in words; empty without prices."""
    if not result["priced"]:
        return ""
    row = next(r for r in router["thresholds"] if r["threshold"] == router["verdict"]["threshold"])
    return f"1,000 calls cost {cost_texts([1000 * row['cost']])[0]}"


def unpriced_models(result: Mapping[str, Any]) -> list[str]:
    """Further models with scores but without a price, which the verdict therefore leaves out."""
    return [m["name"] for m in result["models"] if m["role"] == "other" and m["cost"] is None]


def best_router(result: Mapping[str, Any]) -> int:
    """Position of the router that gains most over the static mix; of the first of equals."""
    gains = [router["verdict"]["gain"]["value"] for router in result["routers"]]
    return max(range(len(gains)), key=gains.__getitem__)


def score_text(result: Mapping[str, Any], value: float) -> str:
    """A score in the unit of the result: percent where scores are shares, else digits by the gap of the models."""
    percent = "%" if result["shares"] else ""
    return f"{_rounded(result, value):.{_digits(result)}f}{percent}"


def gap_text(result: Mapping[str, Any], value: float) -> str:
    """A difference of scores, signed; in the unit that `gap_unit` names."""
    return f"{_rounded(result, value):+.{_digits(result)}f}"


def gap_unit(result: Mapping[str, Any]) -> str:
    """Percentage points where scores are shares; else empty, as differences are in the unit of the scores."""
    return "points" if result["shares"] else ""


def with_gap_unit(result: Mapping[str, Any], heading: str) -> str:
    """The heading of a column of `gap_text`."""
    return ", ".join(filter(None, (heading, gap_unit(result))))


def _digits(result: Mapping[str, Any]) -> int:
    gap = abs(result["strong_quality"] - result["weak_quality"])
    return shown_digits(gap * 10.0, least=1) if result["shares"] else shown_digits(gap / 10.0, least=0)


def _rounded(result: Mapping[str, Any], value: float) -> float:
    """Percent or score with the digits that are shown; a difference that rounds to nothing has no sign."""
    return round(value * (100.0 if result["shares"] else 1.0), _digits(result)) + 0.0


def cost_texts(costs: Sequence[float]) -> list[str]:
    """Costs of a column in one number of decimals: at least cents, three digits of the smallest."""
    least = min((c for c in costs if c > 0), default=1.0)
    digits = shown_digits(least / 10.0, least=2)
    return [f"{cost:,.{digits}f}" for cost in costs]


def _plain(value: Any) -> Any:
    """Numbers as JSON has them: NaN and infinities become None, numpy scalars and tuples plain ones."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
