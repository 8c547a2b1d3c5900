"""Results of an evaluation as one dict of JSON values, and the tables and texts that show them.

Everything that is shown (terminal, Markdown, figures, HTML page) comes from the dict alone, so it can be drawn again
from the saved JSON.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from datetime import date
from itertools import combinations
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from routellm_core.calibration.distribution import Calibration
from routellm_core.calibration.targets import share_interval
from routellm_core.errors import ConfigurationError, DataError
from routellm_core.evaluation.benchmarks import PUBLISHED, Benchmark
from routellm_core.evaluation.cascades import evaluate_cascade
from routellm_core.evaluation.costs import Money, call_costs
from routellm_core.evaluation.router_evaluation import evaluate_router
from routellm_core.evaluation.verdict import (
    MIN_PROMPTS,
    costs_in_calls,
    is_share,
    share_text,
    threshold_text,
    verdict,
)
from routellm_core.report.escaping import pipe_table
from routellm_core.routers.base import Router
from routellm_core.statistics.intervals import compare_routers, curve_band, has_clear_gap, number_text, shown_digits
from routellm_core.statistics.metrics import Floats, prompt_length, static_hull

FORMAT = 3
HEADER = ("router", "APGR", "CPT(50%)", "CPT(80%)", "saving at CPT(50%)")
PAPER = "paper: "
_COLUMNS = {"apgr": "{:.3f}", "cpt_50": "{:.1%}", "cpt_80": "{:.1%}", "saving_50": "{:.2f}×"}
_BASELINES = {"random": "random routing", "prompt_length": "prompt length", "oracle": "oracle"}
_BAND_POINTS = 41
_LISTED = 4
_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def evaluate_benchmark(
    benchmark: Benchmark,
    win_rates: Mapping[str, npt.ArrayLike],
    *,
    strong_cost: npt.ArrayLike | None = None,
    weak_cost: npt.ArrayLike | None = None,
    other_costs: Mapping[str, npt.ArrayLike] | None = None,
    sources: Mapping[str, str] | None = None,
    unseen: Collection[str] = (),
    about: Mapping[str, Any] | None = None,
    accept_threshold: float = 0.5,
    accept_band: tuple[float, float] | None = None,
    draws: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Any]:
    """Evaluate routers on one benchmark: everything that the table, the figures and the page show.

    Args:
        benchmark: The prompts with their scores.
        win_rates: Win rates (n,) of the prompts by each router's name.
        strong_cost: Mean cost of a call of the strong model, or (n,); None counts strong calls only.
        weak_cost: The same for the weak model.
        other_costs: Costs of further models of the benchmark, which makes them alternatives in the verdict.
        about: Where the numbers come from, as JSON values: ``date``, ``command``, ``currency``, ``prices``
            {model: [input, output]}, ``costs`` {model: `CallCosts.to_dict`}, ``trained_on`` {router: words}; any of
            them may be absent.
        sources: What `load_router` takes for each router, for the line that says how to use it.
        unseen: Names of the routers that are known to have been trained on none of the prompts.
        accept_threshold: Where the benchmark says what a check thinks of the weak answers: the score that is accepted.
        accept_band: Win rates within which they are checked; None chooses the band, see `evaluate_cascade`.
        draws: Bootstrap draws.
        confidence: Level of the intervals.
        seed: Seed of the draws.

    Returns:
        JSON values; the key ``"format"`` is the version of their layout.

    Raises:
        DataError: Malformed win rates or costs.
        ConfigurationError: One of the costs of the pair is missing.
    """
    others = dict(other_costs or {})
    if (strong_cost is None) != (weak_cost is None) or (others and strong_cost is None):
        raise ConfigurationError(
            f"strong_cost={strong_cost!r:.80}, weak_cost={weak_cost!r:.80}, other_costs of "
            f"{', '.join(others) or 'no model'}: costs need those of both models"
        )
    costs = None if strong_cost is None or weak_cost is None else (strong_cost, weak_cost)
    how = _Bootstrap(draws=draws, confidence=confidence, seed=seed)
    measured = _Measurement(benchmark, costs, others, how, (accept_threshold, accept_band))
    routers = [
        measured.router(name, rates, (sources or {}).get(name), unseen=name in unseen)
        for name, rates in win_rates.items()
    ]
    baselines = [router.pop("baselines") for router in routers]  # the same for every router
    models = _models(benchmark, dict(zip((benchmark.strong, benchmark.weak), costs or (), strict=False)) | others)
    plain: dict[str, Any] = _plain(
        {
            "format": FORMAT,
            "benchmark": benchmark.name,
            "title": benchmark.title,
            "split": benchmark.split,
            "count": len(benchmark.prompts),
            "contaminated_left_out": benchmark.dropped,
            "seen_left_out": dict(benchmark.seen),
            "incomplete_left_out": benchmark.incomplete,
            "first_incomplete": benchmark.first_incomplete,
            "about": dict(about or {}),
            "strong": benchmark.strong,
            "weak": benchmark.weak,
            "strong_quality": float(benchmark.strong_scores.mean()),
            "weak_quality": float(benchmark.weak_scores.mean()),
            **how,
            "priced": costs is not None,
            "models": models,
            "shares": all(is_share(benchmark.scores[model["name"]]) for model in models),
            "routers": routers,
            "baselines": baselines[-1] if baselines else {},
            "comparisons": _comparisons(benchmark, win_rates, how),
            "published": {
                name: {"cpt_50": c50, "cpt_80": c80, "apgr": area}
                for name, (c50, c80, area) in PUBLISHED.get(benchmark.name, {}).items()
            },
        }
    )
    return plain


def evaluate_priced(
    benchmark: Benchmark,
    win_rates: Mapping[str, npt.ArrayLike],
    *,
    money: Money | None = None,
    routers: Mapping[str, Router] | None = None,
    command: str = "",
    sources: Mapping[str, str] | None = None,
    accept_threshold: float = 0.5,
    accept_band: tuple[float, float] | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Evaluate routers as `evaluate_benchmark` does, with the costs that are known, and say where all of it comes from.

    Args:
        benchmark: As for `evaluate_benchmark`, without the prompts that a router was trained on (`leave_out_seen`).
        win_rates: As for `evaluate_benchmark`.
        money: Prices, mean tokens and currency.
        routers: The routers by name; those that know what they were trained on say so in the report.
        command: The command line, for the report.
        sources: As for `evaluate_benchmark`.
        accept_threshold: As for `evaluate_benchmark`.
        accept_band: As for `evaluate_benchmark`.
        draws: Bootstrap draws.
        seed: Seed of the draws.

    Raises:
        ConfigurationError: There is a price for one model of the pair, and no cost of the other.
        DataError: Malformed win rates.
    """
    money, routers = money or Money(), routers or {}
    costs = call_costs(benchmark, money)
    pair = [costs[model].costs for model in (benchmark.strong, benchmark.weak)] if costs else [None, None]
    return evaluate_benchmark(
        benchmark,
        win_rates,
        strong_cost=pair[0],
        weak_cost=pair[1],
        other_costs={m: c.costs for m, c in costs.items() if m not in (benchmark.strong, benchmark.weak)},
        sources=sources,
        unseen=[name for name, router in routers.items() if router.trained_on is not None],
        about={
            "date": date.today().isoformat(),
            "command": command,
            "currency": money.currency,
            "prices": {model: [price.input, price.output] for model, price in money.prices.items()},
            "costs": {model: cost.to_dict() for model, cost in costs.items()},
            "trained_on": {name: trained_on_text(router) for name, router in routers.items()},
        },
        accept_threshold=accept_threshold,
        accept_band=accept_band,
        draws=draws,
        seed=seed,
    )


def trained_on_text(router: Router) -> str:
    """How many prompts a router was trained on, in words."""
    if router.trained_on is None:
        return "it is not known which prompts it was trained on"
    return f"trained on {len(router.trained_on):,} prompts" if router.trained_on else "not trained on any prompt"


class _Bootstrap(TypedDict):
    draws: int
    confidence: float
    seed: int


class _Measurement:
    """What each router of one benchmark is measured with: the scores, what calls cost, and the static mixes."""

    def __init__(
        self,
        benchmark: Benchmark,
        costs: tuple[npt.ArrayLike, npt.ArrayLike] | None,
        others: Mapping[str, npt.ArrayLike],
        how: _Bootstrap,
        acceptance: tuple[float, tuple[float, float] | None],
    ) -> None:
        self._benchmark = benchmark
        self._acceptance = acceptance
        self._how = how
        self._strong, self._weak = benchmark.strong_scores, benchmark.weak_scores
        self._costs = costs or (None, None)
        self._others = {name: (benchmark.scores[name], c) for name, c in others.items() if name in benchmark.scores}
        try:
            counted = costs or costs_in_calls(self._strong, self._weak)
            self._paid = [np.broadcast_to(np.asarray(c, dtype=np.float64), self._strong.shape) for c in counted]
        except (TypeError, ValueError):
            raise DataError(
                f"strong_cost and weak_cost: expected two numbers, or one for each of the {self._strong.size:,} prompts"
            ) from None
        singles = [(self._paid[0].mean(), self._strong.mean()), (self._paid[1].mean(), self._weak.mean())]
        singles += [(np.mean(np.asarray(cost)), scores.mean()) for scores, cost in self._others.values()]
        self._mix = static_hull([(float(cost), float(quality)) for cost, quality in singles])

    def router(self, name: str, win_rates: npt.ArrayLike, source: str | None, *, unseen: bool) -> dict[str, Any]:
        """The metrics, band, verdict and thresholds of one router, and the baselines."""
        rates = np.asarray(win_rates, dtype=np.float64)
        strong, weak = self._strong, self._weak
        found = evaluate_router(rates, self._benchmark.prompts, strong, weak, name=name, **self._how)
        judged = verdict(
            rates, strong, weak, strong_cost=self._costs[0], weak_cost=self._costs[1], others=self._others,
            strong=self._benchmark.strong, weak=self._benchmark.weak, **self._how,
        )  # fmt: skip
        thresholds, own = self._thresholds(rates, judged.threshold)
        return found.to_dict() | {
            "band": self._band(rates),
            "thresholds": thresholds,
            "source": source,
            "unseen": unseen,
            "verdict": judged.to_dict() | {"threshold": own},
            "cascade": self._cascade(rates),
        }

    def _band(self, rates: Floats) -> dict[str, list[float]]:
        """The interval of the gain over the mix of the two models, drawn around the line of that mix."""
        shares = np.linspace(0.0, 1.0, _BAND_POINTS)
        confidence, seed = self._how["confidence"], self._how["seed"]
        low, high = curve_band(rates, self._strong, self._weak, shares, confidence=confidence, seed=seed)
        line = self._weak.mean() + shares * (self._strong.mean() - self._weak.mean())
        return {"strong_fraction": shares.tolist(), "low": (line + low).tolist(), "high": (line + high).tolist()}

    def _thresholds(self, rates: Floats, chosen: float) -> tuple[list[dict[str, Any]], float]:
        """Rows for round shares of strong calls and for the threshold of the verdict, and that one as it is shown."""
        fitted = Calibration.from_win_rates(rates)
        rows = [self._threshold(rates, fitted, fitted.threshold(strong_fraction=s)) | {"wanted": s} for s in _SHARES]
        own = self._threshold(rates, fitted, chosen) | {"wanted": None}
        if all(row["threshold"] != own["threshold"] for row in rows):
            rows.append(own)
        return sorted(rows, key=lambda row: -row["threshold"]), own["threshold"]

    def _threshold(self, rates: Floats, fitted: Calibration, threshold: float) -> dict[str, Any]:
        """What one threshold costs and scores on these prompts."""
        chosen = rates >= threshold
        quality = float(np.where(chosen, self._strong, self._weak).mean())
        cost = float(np.where(chosen, *self._paid).mean())
        weak, gap = float(self._weak.mean()), float(self._strong.mean() - self._weak.mean())
        confidence, seed = self._how["confidence"], self._how["seed"]
        return {
            "threshold": float(threshold_text(threshold, rates)),
            "strong_fraction": share_interval(fitted, threshold, confidence=confidence, seed=seed).to_dict(),
            "quality": quality,
            "over_mix": quality - float(np.interp(cost, *self._mix)),
            "pgr": (quality - weak) / gap if gap > 0 else None,
            "cost": cost,
            "saving_vs_strong": 1.0 - cost / always if (always := float(self._paid[0].mean())) > 0 else None,
        }

    def _cascade(self, rates: Floats) -> dict[str, Any] | None:
        """Whether checking weak answers pays, on the rows where it is known what the check says; None without them."""
        accepted = self._benchmark.accepted
        known = np.isfinite(accepted) if accepted is not None else np.zeros(rates.size, dtype=bool)
        if accepted is None or known.sum() < MIN_PROMPTS:
            return None
        strong, weak = (
            None if cost is None else paid[known] for cost, paid in zip(self._costs, self._paid, strict=True)
        )
        threshold, band = self._acceptance
        found = evaluate_cascade(
            rates[known], accepted[known], self._strong[known], self._weak[known], strong_cost=strong, weak_cost=weak,
            others={
                name: (scores[known], np.broadcast_to(np.asarray(cost, dtype=np.float64), known.shape)[known])
                for name, (scores, cost) in self._others.items()
            },
            accept_threshold=threshold, accept_band=band, **self._how,
        )  # fmt: skip
        return found.to_dict() | {"unknown": int(known.size - known.sum())}


def _models(benchmark: Benchmark, costs: Mapping[str, npt.ArrayLike]) -> list[dict[str, Any]]:
    """Every model with scores, strong and weak first: its mean score, and its mean cost of a call where it is known."""
    roles = {benchmark.strong: "strong", benchmark.weak: "weak"}
    return [
        {
            "name": name,
            "role": roles.get(name, "other"),
            "quality": float(benchmark.scores[name].mean()),
            "cost": float(np.mean(np.asarray(costs[name], dtype=np.float64))) if name in costs else None,
        }
        for name in (*roles, *(name for name in benchmark.scores if name not in roles))
    ]


def _comparisons(benchmark: Benchmark, win_rates: Mapping[str, npt.ArrayLike], how: _Bootstrap) -> list[dict[str, Any]]:
    """Each router against those after it, and against the baseline that costs nothing to run."""
    strong, weak = benchmark.strong_scores, benchmark.weak_scores
    if not has_clear_gap(strong, weak, how["confidence"]):
        return []  # no gap, no APGR; the notes of each router say so
    lengths = {_BASELINES["prompt_length"]: prompt_length(benchmark.prompts)}
    comparisons = []
    for (a, first), (b, second) in combinations([*win_rates.items(), *lengths.items()], 2):
        c = compare_routers(first, second, strong, weak, **how)
        pair = {"first": a, "second": b, "metric": c.metric, "difference": c.difference.to_dict()}
        comparisons.append({**pair, "p_value": c.p_value})
    return comparisons


def table_rows(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The rows of the one table, as `HEADER` names its columns; the published results come last."""
    measured = [(router["name"], router["metrics"]) for router in result["routers"]]
    measured += [(_BASELINES.get(name, name), metrics) for name, metrics in result["baselines"].items()]
    rows = [
        (name, *(estimate_text(metrics[key], form) for key, form in _COLUMNS.items())) for name, metrics in measured
    ]
    for name, metrics in result["published"].items():
        values = {**metrics, "saving_50": 0.5 / metrics["cpt_50"]}
        rows.append((f"{PAPER}{name}", *(form.format(values[key]) for key, form in _COLUMNS.items())))
    return rows


def estimate_text(estimate: Mapping[str, float | None], form: str = "{:.3f}") -> str:
    """A number with its interval in brackets, or without where the interval is undefined; a dash without a number.

    Args:
        estimate: ``"value"``, ``"low"`` and ``"high"``; None where undefined.
        form: How `str.format` writes one number.
    """
    if estimate["value"] is None:
        return "–"
    text = form.format(estimate["value"])
    if estimate["low"] is None or estimate["high"] is None:
        return text
    return f"{text} [{form.format(estimate['low'])}, {form.format(estimate['high'])}]"


def markdown_table(result: Mapping[str, Any]) -> str:
    """`table_rows` as a Markdown table; names that Markdown would not show literally stand as code."""
    return pipe_table(HEADER, table_rows(result), align="l" + "r" * (len(HEADER) - 1))


def alternatives(
    result: Mapping[str, Any], router: Mapping[str, Any]
) -> list[tuple[str, str, str, tuple[str, str, str]]]:
    """The routed policy, and below it each policy that the verdict compares it with.

    Returns:
        Rows of texts: name, mean score, cost of 1,000 calls (without prices: strong calls), and the routed score minus
        this one as value, low and high in `gap_unit` (empty for the routed policy itself).
    """
    judged = router["verdict"]
    strong, weak = result["models"][:2]
    share, quality = judged["measured_at"]["value"], judged["quality"]["value"]
    # without prices costs are counted in strong calls
    expensive, cheap = (strong["cost"], weak["cost"]) if result["priced"] else (1.0, 0.0)
    paid = judged["cost"]["value"] if result["priced"] else share
    single = judged["basis"] == "best_single"
    differences = dict(judged["differences"])
    if single:  # the gain is over this model, with the interval that the verdict gives
        best_key = {strong["name"]: "always_strong", weak["name"]: "always_weak"}
        differences[best_key.get(judged["best_single"], f"always {judged['best_single']}")] = judged["gain"]
    at = share_text(judged["strong_fraction"]["value"])
    elsewhere = f" ({at} at the threshold)" if at != share_text(share) else ""

    def always(name: str) -> str:
        best = single or name not in (strong["name"], weak["name"])
        return f"always {name}" + (", the best single model" if best and name == judged["best_single"] else "")

    rows: list[tuple[str, float, float, Mapping[str, float] | None]] = [
        (f"routed, {share_text(share)} strong calls{elsewhere}", quality, paid, None),
        (always(weak["name"]), weak["quality"], cheap, differences["always_weak"]),
        (always(strong["name"]), strong["quality"], expensive, differences["always_strong"]),
    ]
    for model in result["models"]:
        if model["role"] == "other" and model["cost"] is not None:
            difference = differences[f"always {model['name']}"]
            rows.append((always(model["name"]), model["quality"], model["cost"], difference))
    if not single:
        rows.append(("static mix of the same cost", quality - judged["gain"]["value"], paid, judged["gain"]))
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
    spent = cost_label(result) if result["priced"] else "strong calls"
    return "policy", "mean score", spent, with_gap_unit(result, "routed minus this")


def cost_label(result: Mapping[str, Any]) -> str:
    """The heading of costs, with the currency where it was named."""
    currency = result["about"].get("currency")
    return "cost of 1,000 calls" + (f", {currency}" if currency else "")


def bar_text(result: Mapping[str, Any]) -> str:
    """What routing has to beat: the best single model, where no model is cheaper, else the static mix."""
    judged = [router["verdict"] for router in result["routers"]]
    single = judged and judged[0]["basis"] == "best_single"
    return f"always {judged[0]['best_single']}" if single else "a static mix"


def left_out_notes(result: Mapping[str, Any]) -> list[str]:
    """Which rows were left out, and why; a note for each reason."""
    notes = []
    for name, count in result["seen_left_out"].items():
        what = f"{count:,} prompts were" if count != 1 else "1 prompt was"
        notes.append(f"{what} left out because the router {name} was trained on {'them' if count != 1 else 'it'}")
    incomplete = result["incomplete_left_out"]
    if incomplete:
        what = f"{incomplete:,} rows were" if incomplete != 1 else "1 row was"
        first = result["first_incomplete"]
        notes.append(f"{what} left out for lack of a score of {result['strong']} or {result['weak']}; first: {first}")
    if contaminated := result["contaminated_left_out"]:
        notes.append(f"{contaminated:,} contaminated prompts were left out")
    return notes


def cost_notes(result: Mapping[str, Any]) -> list[str]:
    """What the costs of the models rest on, a note for each model that has one."""
    count, currency = result["count"], result["about"].get("currency")
    prices, notes = result["about"].get("prices", {}), []
    for model, cost in result["about"].get("costs", {}).items():
        measured, assumed = cost["measured"], cost["assumed"]
        rest = f"estimated from {assumed}"
        if measured:
            known = f"measured for {measured:,} of {count:,} prompts"
            rest = f"{known}; for the others {rest}" if assumed else known
        price = ""
        if model in prices:
            unit = f" {currency}" if currency else ""
            price = f"price {prices[model][0]:g} in / {prices[model][1]:g} out{unit} per million tokens; "
        notes.append(f"cost of {model}: {price}{rest}")
    return notes


def notes_of(router: Mapping[str, Any]) -> list[str]:
    """What a reader must know about a router's numbers and its verdict; each note once."""
    return list(dict.fromkeys((*router["notes"], *router["verdict"]["notes"])))


def use_text(router: Mapping[str, Any]) -> str | None:
    """The policy to use as one line of Python; None unless the verdict is that routing gains."""
    if router["verdict"]["outcome"] != "gains":
        return None
    source = router.get("source")
    load = (
        "router" if source is None else "load_router()" if source in ("mf", "mf_vote") else f"load_router({source!r})"
    )
    return f"RoutingPolicy({load}, threshold={number_text(router['verdict']['threshold'])})"


def threshold_cost(result: Mapping[str, Any], router: Mapping[str, Any]) -> str:
    """What 1,000 calls cost at the threshold of the verdict, in words; empty without prices."""
    if not result["priced"]:
        return ""
    row = next(r for r in router["thresholds"] if r["threshold"] == router["verdict"]["threshold"])
    return f"1,000 calls cost {cost_texts([1000 * row['cost']])[0]}"


def cascade_rows(result: Mapping[str, Any], router: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the evaluation of a cascade found, as names and texts; empty where the data say nothing of a check."""
    found = router.get("cascade")
    if found is None:
        return []

    def gain(estimate: Mapping[str, float]) -> str:
        value, low, high = (gap_text(result, estimate[end]) for end in ("value", "low", "high"))
        return f"{value} [{low}, {high}]" + (f" {gap_unit(result)}" if gap_unit(result) else "")

    def score(value: float | None) -> str:
        return "–" if value is None else score_text(result, value)

    low, high = map(number_text, found["accept_band"])
    paid = f"{found['cost']['value']:.2f} strong calls a call"
    if result["priced"]:
        paid = (
            f"{cost_texts([1000 * found['cost']['value']])[0]} for 1,000 calls, both calls of a refused answer counted"
        )
    return [
        ("against routing alone", gain(found["over_routing"])),
        ("against the static mix", gain(found["over_mix"])),
        ("mean score", score(found["quality"]["value"])),
        ("cost", paid),
        ("strong at once", f"{found['strong_fraction']:.0%}, from a win rate of {number_text(found['threshold'])}"),
        ("checked", f"{found['checked']:.0%}, at win rates from {low} to {high}"),
        ("refused", f"{found['escalated']:.0%}: these calls are paid twice"),
        (
            "the check itself",
            f"weak answers that it accepts score {score(found['accepted_quality'])}, those that it refuses "
            f"{score(found['refused_quality'])}",
        ),
    ]


def cascade_use(router: Mapping[str, Any]) -> str | None:
    """The options to use as Python; None unless the cascade pays."""
    found = router.get("cascade")
    if found is None or found["outcome"] != "pays":
        return None
    low, high = map(number_text, found["accept_band"])
    return f"threshold={number_text(found['threshold'])}, accept=your_check, accept_band=({low}, {high})"


def cascade_notes(result: Mapping[str, Any], router: Mapping[str, Any]) -> list[str]:
    """What a reader must know about the evaluation of the cascade."""
    found = router.get("cascade")
    if found is None:
        return []
    notes = []
    if found["unknown"]:
        notes.append(f"the cascade is measured on {found['count']:,} prompts; for {found['unknown']:,} others the data "
                     "do not say whether the check accepts the weak answer")  # fmt: skip
    if not result["priced"]:
        notes.append("without prices, the weak call of a refused answer counts nothing: give --price for both models")
    return notes


def unpriced_note(result: Mapping[str, Any]) -> str:
    """Which further models the verdict skips, because they have scores but no price; empty if it skips none."""
    names = [m["name"] for m in result["models"] if m["role"] == "other" and m["cost"] is None]
    listed = ", ".join(names[:_LISTED]) + (", ..." if len(names) > _LISTED else "")
    return f"skipped in the comparison (no --price given): {listed}" if names else ""


def difference_text(difference: Mapping[str, float]) -> str:
    """A difference in APGR with its interval."""
    return estimate_text(difference, "{:+.3f}")


def is_clear(comparison: Mapping[str, Any]) -> bool:
    """Whether the interval of a paired comparison leaves out zero."""
    difference = comparison["difference"]
    return bool(difference["low"] > 0 or difference["high"] < 0)


def best_router(result: Mapping[str, Any]) -> int:
    """Position of the router that gains most over the static mix; the first of equals."""
    gains = [router["verdict"]["gain"]["value"] for router in result["routers"]]
    return max(range(len(gains)), key=gains.__getitem__)


def score_text(result: Mapping[str, Any], value: float) -> str:
    """A score in the unit of the result: percent where scores are shares; the gap of the models sets the digits."""
    percent = "%" if result["shares"] else ""
    return f"{_rounded(result, value):.{_digits(result)}f}{percent}"


def gap_text(result: Mapping[str, Any], value: float) -> str:
    """A difference of scores, signed; in the unit that `gap_unit` names."""
    return f"{_rounded(result, value):+.{_digits(result)}f}"


def gap_unit(result: Mapping[str, Any]) -> str:
    """Percentage points where scores are shares; else empty, because differences have the unit of the scores."""
    return "points" if result["shares"] else ""


def with_gap_unit(result: Mapping[str, Any], heading: str) -> str:
    """The heading of a column of `gap_text`."""
    return ", ".join(filter(None, (heading, gap_unit(result))))


def _digits(result: Mapping[str, Any]) -> int:
    gap = abs(result["strong_quality"] - result["weak_quality"])
    return shown_digits(gap * 10.0, least=1) if result["shares"] else shown_digits(gap / 10.0, least=0)


def _rounded(result: Mapping[str, Any], value: float) -> float:
    """Percent or score, rounded to the digits that are shown; a difference that rounds to zero has no sign."""
    return round(value * (100.0 if result["shares"] else 1.0), _digits(result)) + 0.0


def cost_texts(costs: Sequence[float]) -> list[str]:
    """Costs of a column with the same number of decimals: at least two, and enough for three digits of the smallest."""
    least = min((c for c in costs if c > 0), default=1.0)
    digits = shown_digits(least / 10.0, least=2)
    return [f"{cost:,.{digits}f}" for cost in costs]


def _plain(value: Any) -> Any:
    """Values that JSON can hold: NaN and infinities become None, numpy scalars and tuples plain values."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
