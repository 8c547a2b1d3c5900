"""The choice among many models as one dict of JSON values, and the tables, the sentence and the page that show it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

import numpy.typing as npt

from routellm_core.errors import ConfigurationError
from routellm_core.evaluation.benchmarks import Benchmark
from routellm_core.evaluation.costs import Money, call_costs
from routellm_core.evaluation.pairs import Choice, best_models
from routellm_core.evaluation.verdict import is_share
from routellm_core.report.chart import draw_choice
from routellm_core.report.page import Cell, Row
from routellm_core.report.rendering import render
from routellm_core.report.results import FORMAT, cost_label, cost_notes, cost_texts, left_out_notes

CALLS = 1000  # that costs and budgets are for, as in every report
_SIZES = {1: "best single model", 2: "best pair", 3: "best three"}


def choose_models(
    benchmark: Benchmark,
    win_rates: npt.ArrayLike,
    budget: float,
    *,
    money: Money,
    router: str,
    trained_on: str = "",
    command: str = "",
    draws: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Find the best models at a budget, with everything that tables, figure and page show.

    Args:
        benchmark: The prompts with the scores of all models (`load_scores`).
        win_rates: Win rates (n,) of the prompts by one router, which orders them for every pair.
        budget: Money for 1,000 calls that is not to be exceeded.
        money: Prices; models without a price or known costs are left out.
        router: What the report calls the router.
        trained_on: On what it was trained, in words, for the report.
        command: The command line, for the report.
        draws: Bootstrap draws.
        seed: Seed of the draws and of the cross-fitting.

    Returns:
        JSON values; costs are those of 1,000 calls.

    Raises:
        ConfigurationError: Fewer than two models have a price, or the budget pays for none.
        DataError: There are too few prompts.
    """
    costs = call_costs(benchmark, money)
    if len(costs) < 2:
        raise ConfigurationError(
            f"{benchmark.name}: a choice needs the costs of at least two models: give --price MODEL=IN/OUT for each"
        )
    scores = {model: benchmark.scores[model] for model in costs}
    # rounded, or a budget of exactly the cost of a model might not pay for it
    means = {model: float(f"{CALLS * float(cost.costs.mean()):.12g}") for model, cost in costs.items()}
    found = best_models(win_rates, scores, means, budget, draws=draws, seed=seed)
    choices = [choice for choice in (found.single, found.pair, found.triple) if choice is not None]
    result: dict[str, Any] = {
        "format": FORMAT,
        "benchmark": benchmark.name,
        "title": f"{benchmark.title}, {len(costs)} models",
        "split": benchmark.split,
        "count": found.count,
        "contaminated_left_out": benchmark.dropped,
        "seen_left_out": dict(benchmark.seen),
        "incomplete_left_out": benchmark.incomplete,
        "first_incomplete": benchmark.first_incomplete,
        "about": {
            "date": date.today().isoformat(),
            "command": command,
            "currency": money.currency,
            "prices": {model: [price.input, price.output] for model, price in money.prices.items()},
            "costs": {model: cost.to_dict() for model, cost in costs.items()},
            "trained_on": {router: trained_on} if trained_on else {},
        },
        "router": router,
        "budget": float(budget),
        "confidence": 0.95,
        "draws": draws,
        "seed": seed,
        "shares": all(is_share(values) for values in scores.values()),
        "models": [
            {"name": model, "quality": float(scores[model].mean()), "cost": means[model]}
            for model in sorted(means, key=lambda model: (-means[model], model))
        ],
        "choices": [_choice(choice, size) for size, choice in enumerate(choices, 1)],
        "hull": [_choice(choice, len(choice.mix.models)) for choice in found.hull],
        "recommended": 1 + choices.index(found.recommended),
    }
    return result | {"sentence": _sentence(result)}


def _choice(choice: Choice, size: int) -> dict[str, Any]:
    """A choice as JSON values; `size` is how many models it could have had."""
    return {
        "size": size,
        "budget": choice.budget,
        "models": list(choice.mix.models),
        "shares": list(choice.mix.shares),
        "cost": choice.mix.cost,
        "quality": choice.quality.to_dict(),
        "gain": None if choice.gain is None else choice.gain.to_dict(),
        "agreement": choice.agreement,
        "quality_on_all": choice.mix.quality,
    }


def _sentence(result: Mapping[str, Any]) -> str:
    best = result["choices"][result["recommended"] - 1]
    what = "one model" if best["size"] == 1 else "a pair" if best["size"] == 2 else "three models"
    sentence = (
        f"At a budget of {result['budget']:g} for 1,000 calls, use {what}: {mix_text(best)}, which scores "
        f"{_estimate(result, best['quality'])}"
    )
    unit = " points" if result["shares"] else ""
    if best["gain"] is not None:
        sentence += f", {_gain(result, best['gain'])}{unit} over the {_SIZES[best['size'] - 1]}"
    for larger in result["choices"][result["recommended"] :]:
        what = _SIZES[larger["size"]].removeprefix("best ")
        sentence += f"; it is not sure that {what if larger['size'] == 3 else 'a pair'} would score more"
        sentence += f" ({_gain(result, larger['gain'])}{unit})"
    return sentence + "."


def mix_text(choice: Mapping[str, Any]) -> str:
    """Models with their shares of the calls, the one for the hardest prompts first."""
    shares, models = choice["shares"], choice["models"]
    if len(models) == 1:
        return str(models[0])
    digits = 0 if all(0.005 <= share <= 0.995 for share in shares) else 1
    return " + ".join(f"{share:.{digits}%} {model}" for share, model in zip(shares, models, strict=True))


def _estimate(result: Mapping[str, Any], estimate: Mapping[str, float]) -> str:
    value, low, high = (_score(result, estimate[end]) for end in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _score(result: Mapping[str, Any], value: float) -> str:
    return f"{100 * value:.1f}%" if result["shares"] else f"{value:.4g}"


def _gain(result: Mapping[str, Any], estimate: Mapping[str, float]) -> str:
    unit, digits = (100.0, 1) if result["shares"] else (1.0, 4)
    # rounded first: what rounds to zero has no sign
    value, low, high = (f"{round(unit * estimate[end], digits) + 0.0:+.{digits}f}" for end in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def choice_rows(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The best single model, pair and three at the budget: texts, as `choice_header` names the columns."""
    choices = result["choices"]
    costs = cost_texts([choice["cost"] for choice in choices])
    return [
        (
            _SIZES[choice["size"]] + (", recommended" if choice["size"] == result["recommended"] else ""),
            mix_text(choice),
            cost,
            _estimate(result, choice["quality"]),
            "" if choice["gain"] is None else _gain(result, choice["gain"]),
            f"{choice['agreement']:.0%}",
        )
        for choice, cost in zip(choices, costs, strict=True)
    ]


def choice_header(result: Mapping[str, Any]) -> tuple[str, ...]:
    """The columns of `choice_rows`."""
    gain = "gain" + (", points" if result["shares"] else "")
    return ("choice", "models", cost_label(result), "mean score", gain, "folds")


def hull_rows(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The best single model or pair over budgets: texts, as `hull_header` names the columns."""
    costs = cost_texts([choice["cost"] for choice in result["hull"]])
    return [
        (cost, mix_text(choice), _estimate(result, choice["quality"]))
        for choice, cost in zip(result["hull"], costs, strict=True)
    ]


def hull_header(result: Mapping[str, Any]) -> tuple[str, ...]:
    """The columns of `hull_rows`."""
    return (cost_label(result), "models", "mean score")


def choice_notes(result: Mapping[str, Any]) -> list[str]:
    """What the numbers rest on."""
    about = result["about"]
    rests = {words.partition("; ")[2] for words in cost_notes(result)}
    notes = [f"costs are {' or '.join(sorted(rests))}"] if rests else []
    if lacking := result["incomplete_left_out"]:
        rows = f"{lacking:,} rows were left out because they lack" if lacking != 1 else "1 row was left out: it lacks"
        notes.append(f"{rows} a score of one of these models; first: {result['first_incomplete']}")
    notes += left_out_notes({**result, "incomplete_left_out": 0})
    trained = about["trained_on"].get(result["router"])
    notes.append(
        "gain: over the row above; folds: the share of ten parts of the prompts whose rest chooses the same models"
    )
    notes.append(
        f"each score is measured on prompts that had no say in the choice, and its {100 * result['confidence']:g}% "
        f"interval allows for the choosing; prompts are ordered by {result['router']}"
        + (f" ({trained})" if trained else "")
    )
    return notes


def render_choice(result: Mapping[str, Any]) -> str:
    """One self-contained page of a choice.

    Args:
        result: What `choose_models` returned, or the same read back from JSON.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    about = result["about"]
    lead, colon, rest = result["sentence"].partition(": ")

    def rows(found: list[tuple[str, ...]], *, ours: int | None = None) -> list[Row]:
        return [
            Row(name, [_cell(text) for text in cells], "ours" if i == ours else "")
            for i, (name, *cells) in enumerate(found)
        ]

    costs = cost_texts([model["cost"] for model in result["models"]])
    return render(
        "choice.html.jinja",
        title="The right models",
        about=[(name, about[key]) for name, key in (("Date", "date"), ("Command", "command")) if about.get(key)],
        heading=result["title"],
        lead=lead,
        rest=colon + rest,
        notes=choice_notes(result),
        header=choice_header(result),
        rows=rows(choice_rows(result), ours=result["recommended"] - 1),
        drawing=draw_choice(result),
        budget=f"{result['budget']:g}",
        hull_header=hull_header(result),
        hull=rows(hull_rows(result)),
        models=[
            Row(model["name"], [Cell(cost), Cell(_score(result, model["quality"]))])
            for model, cost in zip(result["models"], costs, strict=True)
        ],
        model_header=("model", cost_label(result), "mean score"),
    )


def _cell(text: str) -> Cell:
    """A value with its interval below it."""
    value, _, interval = text.partition(" [")
    interval, _, unit = interval.partition("]")
    return Cell(value + unit, interval.replace(", ", " – "))
