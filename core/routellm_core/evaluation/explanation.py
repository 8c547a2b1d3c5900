"""The explanation of one win rate: how it ranks, which targets send the prompt to strong, and what speaks for that."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from routellm_core.calibration.distribution import Calibration
from routellm_core.calibration.scoring import RouterLike
from routellm_core.calibration.targets import share_interval
from routellm_core.checks import Side, checked_count, checked_prompts
from routellm_core.routers import Router, as_router

if TYPE_CHECKING:
    from routellm_core.routers.knn import StoredOutcome
    from routellm_core.routers.sw_ranking import StoredBattle

_SHARES = (0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
# Each word costs one more scored prompt; beyond this many the answer is no easier to read.
_MAX_WORDS = 48
_WORD = re.compile(r"\w+(?:['’]\w+)*", re.UNICODE)


@dataclass(frozen=True, slots=True)
class ShareDecision:
    """Where the prompt goes for one share of strong calls.

    Attributes:
        strong_fraction: The share, in [0, 1].
        threshold: The threshold that the calibration gives for it.
        model: The side that the prompt goes to at this threshold.
    """

    strong_fraction: float
    threshold: float
    model: Side


@dataclass(frozen=True, slots=True)
class WordEffect:
    """What one word does to the win rate.

    Attributes:
        word: The word.
        effect: Win rate of the prompt minus win rate of the prompt without the word; positive speaks for strong.
    """

    word: str
    effect: float


@dataclass(frozen=True, slots=True)
class FeatureEffect:
    """What one named part of the embedding adds to the logit of the win rate.

    Attributes:
        feature: A surface feature, or ``"words"`` for all words together.
        logit: The summand, relative to an average training prompt; positive speaks for strong.
    """

    feature: str
    logit: float


@dataclass(frozen=True, slots=True)
class BattleEvidence:
    """A stored battle with a similar prompt.

    Attributes:
        similarity: Cosine of its prompt with this prompt, in [-1, 1].
        first_tier: Tier of one model; 0 is best.
        second_tier: Tier of the other model.
        outcome: How the first model did: ``"won"``, ``"tied"`` or ``"lost"``.
        speaks_for: ``"strong"``, ``"weak"`` or ``"neither"``.
    """

    similarity: float
    first_tier: int
    second_tier: int
    outcome: str
    speaks_for: str


@dataclass(frozen=True)
class Explanation:
    """Why a prompt gets its win rate.

    Attributes:
        router: Name of the router.
        win_rate: P(the strong model's answer beats the weak model's).
        percentile: Share of the calibration prompts with a lower win rate; None without a calibration.
        percentile_interval: The 95 % interval of that share for prompts like those of the calibration.
        calibrated_on: Number of those prompts.
        targets: For several shares of strong calls, the threshold and the side that this prompt goes to.
        words: The words whose removal changes the win rate most, largest effect first. Empty for the random router,
            whose win rates do not depend on words.
        features: For a factorization over the bundled embedding, the largest summands of the logit of the win rate,
            in a long prompt those of the window that sets it. Empty where stored outcomes vote on the prompt.
        battles: For similarity-weighted ranking, the stored battles with the most similar prompts.
        outcomes: For nearest neighbours, and where outcomes vote on the prompt, the most similar stored prompts, with
            the scores of the pair and the side that they speak for.
    """

    router: str
    win_rate: float
    percentile: float | None
    percentile_interval: tuple[float, float] | None
    calibrated_on: int | None
    targets: Sequence[ShareDecision]
    words: Sequence[WordEffect]
    features: Sequence[FeatureEffect]
    battles: Sequence[BattleEvidence]
    outcomes: Sequence[StoredOutcome]

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return asdict(self)


def explain_prompt(
    router: RouterLike, prompt: str, calibration: Calibration | None = None, *, top: int = 8
) -> Explanation:
    """Explain the win rate of one prompt.

    The effect of a word is measured by leaving it out, so this scores up to 49 prompts, in one batch.

    Args:
        router: A router, or whatever else `routellm_core.routers.as_router` accepts.
        prompt: The prompt.
        calibration: The distribution to rank the win rate in. It is not checked against the router; see
            `Calibration.check_router`.
        top: Number of words, features, battles and outcomes to report at most.

    Raises:
        ConfigurationError: `top` is not an integer >= 1, or `router` does not stand for a router.
        PromptError: `prompt` is not a str.
        RouterError: The router failed.
    """
    checked_count(top, "top")
    checked_prompts([prompt])
    asked = as_router(router)
    rate, words = _words(asked, prompt)
    percentile: float | None = None
    interval: tuple[float, float] | None = None
    targets: list[ShareDecision] = []
    if calibration is not None:
        upward = share_interval(calibration, rate)
        percentile, interval = 1.0 - upward.value, (1.0 - upward.high, 1.0 - upward.low)
        for share in _SHARES:
            threshold = calibration.threshold(strong_fraction=share)
            targets.append(ShareDecision(share, threshold, "strong" if rate >= threshold else "weak"))
    return Explanation(
        router=asked.name,
        win_rate=rate,
        percentile=percentile,
        percentile_interval=interval,
        calibrated_on=None if calibration is None else calibration.count,
        targets=targets,
        words=words[:top],
        features=_features(asked, prompt)[:top],
        battles=_battles(asked, prompt, top),
        outcomes=_outcomes(asked, prompt, top),
    )


def _words(router: Router, prompt: str) -> tuple[float, list[WordEffect]]:
    """The win rate of the prompt, and the effect of each word that has one, largest first."""
    from routellm_core.routers.random import RandomRouter

    words = [] if isinstance(router, RandomRouter) else list(dict.fromkeys(_WORD.findall(prompt)))[:_MAX_WORDS]
    without = [re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", "", prompt) for word in words]
    rate, *rest = router.win_rates([prompt, *without]).tolist()
    effects = [WordEffect(word, rate - other) for word, other in zip(words, rest, strict=True)]
    effects.sort(key=lambda found: -abs(found.effect))
    return rate, [found for found in effects if abs(found.effect) > 1e-9]


def _features(router: Router, prompt: str) -> list[FeatureEffect]:
    """Contributions to the logit where it is a sum over named parts of the embedding; empty for other routers."""
    from routellm_core.embedders.static import SURFACE_NAMES, StaticEmbedder
    from routellm_core.routers.mf import MatrixFactorizationRouter
    from routellm_core.routers.mf_vote import HeadAndVoteRouter

    texts = None
    if isinstance(router, HeadAndVoteRouter):
        text, voted = router.deciding_text(prompt)
        if voted:
            return []
        router, texts = router.head, [text]
    if not isinstance(router, MatrixFactorizationRouter) or not isinstance(router.embedder, StaticEmbedder):
        return []
    products = router.embedder.embed(texts or router.texts_of(prompt)) * router.vector
    parts = products[products.sum(axis=1).argmax()]  # the window that sets the win rate
    words = router.embedder.text_dimension
    found = [FeatureEffect("words", float(parts[:words].sum()))]
    found += [FeatureEffect(name, float(part)) for name, part in zip(SURFACE_NAMES, parts[words:-1], strict=True)]
    return sorted((f for f in found if f.logit != 0.0), key=lambda f: -abs(f.logit))


def _battles(router: Router, prompt: str, top: int) -> list[BattleEvidence]:
    """The stored battles nearest to the prompt; empty for other routers."""
    from routellm_core.routers.sw_ranking import SimilarityWeightedRouter

    if not isinstance(router, SimilarityWeightedRouter):
        return []
    strong, weak = router.tiers[router.strong], router.tiers[router.weak]
    return [
        BattleEvidence(b.similarity, b.first_tier, b.second_tier, b.outcome, _speaks_for(b, strong, weak))
        for b in router.nearest_battles(prompt, top)
    ]


def _speaks_for(battle: StoredBattle, strong: int, weak: int) -> str:
    if battle.outcome == "tied" or battle.first_tier == battle.second_tier or strong == weak:
        return "neither"
    # battles of two tiers have the winner first
    return "strong" if (battle.first_tier < battle.second_tier) == (strong < weak) else "weak"


def _outcomes(router: Router, prompt: str, top: int) -> list[StoredOutcome]:
    """The stored prompts nearest to the prompt, where their outcomes vote on it; empty for other routers."""
    from routellm_core.routers.knn import KNNRouter
    from routellm_core.routers.mf_vote import HeadAndVoteRouter

    if isinstance(router, HeadAndVoteRouter):
        text, voted = router.deciding_text(prompt)
        return router.nearest_outcomes(text, top) if voted else []
    return router.nearest_outcomes(prompt, top) if isinstance(router, KNNRouter) else []
