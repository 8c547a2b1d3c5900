"""`routellm explain`: why a prompt gets the win rate that it gets."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from routellm_core.calibration.distribution import Calibration
    from routellm_core.routers.base import Router

_TARGETS = (0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
# Each word costs one more scored prompt; beyond so many the answer is no easier to read.
_MAX_WORDS = 48
# From so many prompts on a percent is within three points of what further prompts would say.
_MANY = 1000
_WORD = re.compile(r"\w+(?:['’]\w+)*", re.UNICODE)


def explain(
    prompt: Annotated[str, typer.Argument(help="The prompt.")],
    router: Annotated[str, typer.Option("--router", "-r", help="Router: a name or a directory.")] = "mf",
    calibration: Annotated[Path | None, typer.Option(help="Calibration file.", show_default="the router's own")] = None,
    top: Annotated[int, typer.Option(help="How many words and features to show.", min=1)] = 8,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for a program.")] = False,
) -> None:
    """Say what a prompt's win rate is, how it ranks, which targets send it to the strong model, and what speaks for it.

    Example: routellm explain "Prove that the square root of 2 is irrational."
    """
    from routellm_core.calibration.distribution import Calibration
    from routellm_core.routers import load_router

    found = load_router(router)
    fitted = found.calibration if calibration is None else Calibration.load(calibration)
    if fitted is not None:
        fitted.check_router(found)
    result = explanation(found, prompt, fitted, top=top)
    if as_json:
        print(json.dumps(asdict(result)))
    else:
        _print(result)


@dataclass(frozen=True)
class Explanation:
    """Why a prompt gets its win rate.

    Attributes:
        router: Name of the router.
        win_rate: P(the strong model's answer beats the weak model's).
        percentile: Share of the calibration prompts with a lower win rate; None without a calibration.
        percentile_interval: Where, with 95 % confidence, that share lies for prompts like those of the calibration.
        calibrated_on: Number of those prompts.
        targets: For several shares of strong calls: the threshold, and whether this prompt is strong at it.
        words: Words by what leaving them out takes from the win rate; positive speaks for the strong model. None for
            the random router, whose win rates do not depend on them.
        features: For a factorization over the bundled embedding: what each surface feature, and all words
            together, add to the logit of the win rate. Features are relative to an average training prompt.
        battles: For similarity-weighted ranking: the stored battles with the most similar prompts, the tiers that met
            (0 is best), and which side their outcome speaks for (a tie for neither).
        outcomes: For nearest neighbours: the most similar stored prompts, what the pair scored on them, and which side
            that speaks for.
    """

    router: str
    win_rate: float
    percentile: float | None
    percentile_interval: tuple[float, float] | None
    calibrated_on: int | None
    targets: list[dict[str, Any]]
    words: list[dict[str, Any]]
    features: list[dict[str, Any]]
    battles: list[dict[str, Any]]
    outcomes: list[dict[str, Any]]


def explanation(router: Router, prompt: str, calibration: Calibration | None = None, *, top: int = 8) -> Explanation:
    """Explain the win rate of one prompt.

    Args:
        router: Any router. What its words do is found by leaving each out in turn, so it takes up to 49 scored
            prompts, in one batch.
        prompt: The prompt.
        calibration: Distribution to rank it in.
        top: How many words and features to give at most.
    """
    from routellm_core.calibration.targets import share_interval
    from routellm_core.routers.random import RandomRouter

    words = [] if isinstance(router, RandomRouter) else list(dict.fromkeys(_WORD.findall(prompt)))[:_MAX_WORDS]
    without = [re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", "", prompt) for word in words]
    rates = router.win_rates([prompt, *without])
    rate = float(rates[0])
    effects = sorted(
        ({"word": word, "effect": rate - float(rates[i])} for i, word in enumerate(words, 1)),
        key=lambda item: -abs(float(item["effect"])),
    )
    targets = []
    percentile, interval = None, None
    if calibration is not None:
        upward = share_interval(calibration, rate)
        percentile, interval = 1.0 - upward.value, (1.0 - upward.high, 1.0 - upward.low)
        for share in _TARGETS:
            threshold = calibration.threshold(strong_fraction=share)
            side = "strong" if rate >= threshold else "weak"
            targets.append({"strong_fraction": share, "threshold": threshold, "model": side})
    return Explanation(
        router=router.name,
        win_rate=rate,
        percentile=percentile,
        percentile_interval=interval,
        calibrated_on=None if calibration is None else calibration.count,
        targets=targets,
        words=[item for item in effects if abs(item["effect"]) > 1e-9][:top],
        features=_features(router, prompt, top),
        battles=_battles(router, prompt, top),
        outcomes=_outcomes(router, prompt, top),
    )


def _features(router: Router, prompt: str, top: int) -> list[dict[str, Any]]:
    """Contributions to the logit where it is a sum over named parts of the embedding; empty for other routers."""
    from routellm_core.embedders.static import SURFACE_NAMES, StaticEmbedder
    from routellm_core.routers.mf import MatrixFactorizationRouter

    if not isinstance(router, MatrixFactorizationRouter) or not isinstance(router.embedder, StaticEmbedder):
        return []
    parts = router.embedder.embed([prompt])[0] * router.vector
    text = router.embedder.text_dimension
    named = {"words": float(parts[:text].sum())}
    named |= {name: float(value) for name, value in zip(SURFACE_NAMES, parts[text:-1], strict=True)}
    ranked = sorted(named.items(), key=lambda item: -abs(item[1]))[:top]
    return [{"feature": name, "logit": value} for name, value in ranked if value != 0.0]


def _battles(router: Router, prompt: str, top: int) -> list[dict[str, Any]]:
    """The stored battles nearest to the prompt; empty for other routers."""
    from routellm_core.routers.sw_ranking import SimilarityWeightedRouter

    if not isinstance(router, SimilarityWeightedRouter):
        return []
    strong, weak = router.tiers[router.strong], router.tiers[router.weak]
    out = []
    for battle in router.nearest_battles(prompt, top):
        if battle.outcome == "tied" or battle.first_tier == battle.second_tier or strong == weak:
            side = "neither"
        else:  # battles of two tiers have the winner first
            side = "strong" if (battle.first_tier < battle.second_tier) == (strong < weak) else "weak"
        out.append({**asdict(battle), "speaks_for": side})
    return out


def _outcomes(router: Router, prompt: str, top: int) -> list[dict[str, Any]]:
    """The stored prompts nearest to the prompt; empty for other routers."""
    from routellm_core.routers.knn import KNNRouter

    return [asdict(found) for found in router.nearest_outcomes(prompt, top)] if isinstance(router, KNNRouter) else []


def _print(result: Explanation) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=120)
    console.print(Text(f"win rate {result.win_rate:.4f} ({result.router}){_rank(result)}"))

    def show(title: str, header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
        if not rows:
            return
        table = Table(box=None, pad_edge=False, header_style="bold")
        for i, name in enumerate(header):
            table.add_column(name, justify="right" if i else "left")
        for row in rows:
            table.add_row(*(Text("".join(c if c.isprintable() else "�" for c in cell)) for cell in row))
        console.print(Text(f"\n{title}", "italic"))
        console.print(table)

    show(
        "where it goes for a wanted share of strong calls",
        ("strong calls", "threshold", "goes to"),
        [(f"{t['strong_fraction']:.0%}", f"{t['threshold']:.4f}", t["model"]) for t in result.targets],
    )
    show(
        "words: what leaving one out takes from the win rate",
        ("word", "effect"),
        [(w["word"], f"{w['effect']:+.4f}") for w in result.words],
    )
    show(
        "features: the largest summands of the win rate's logit, beside a constant",
        ("feature", "summand"),
        [(f["feature"], f"{f['logit']:+.3f}") for f in result.features],
    )
    show(
        "nearest battles (tier 0 is best)",
        ("battle", "similarity", "speaks for"),
        [
            (
                f"tier {b['first_tier']} {b['outcome']} against tier {b['second_tier']}",
                f"{b['similarity']:.3f}",
                b["speaks_for"],
            )
            for b in result.battles
        ],
    )
    show(
        "nearest of the prompts that it was trained on",
        ("similarity", "strong scored", "weak scored", "speaks for"),
        [
            (f"{o['similarity']:.3f}", f"{o['strong_score']:.4g}", f"{o['weak_score']:.4g}", o["speaks_for"])
            for o in result.outcomes
        ],
    )
    if result.router == "random":
        console.print(Text("\nthe win rate is random: it does not depend on its words", "italic"))
    if not result.targets:
        console.print(Text("no calibration: fit one with routellm calibrate, or give --calibration FILE", "yellow"))


def _rank(result: Explanation) -> str:
    """How the win rate ranks: a count where a percent would claim more than so few prompts give."""
    if result.percentile is None or result.percentile_interval is None or result.calibrated_on is None:
        return ""
    count = result.calibrated_on
    share = f"{round(result.percentile * count)}" if count < _MANY else _percent(result.percentile)
    low, high = result.percentile_interval
    return f", higher than {share} of {count:,} calibration prompts (95% interval {low:.0%} to {high:.0%})"


def _percent(share: float) -> str:
    """Whole percent, but 0 % and 100 % only where they are exact."""
    if 0.0 < share < 0.005:
        return "under 1%"
    return "over 99%" if 0.995 < share < 1.0 else f"{share:.0%}"
