"""RoutingPolicy: router + threshold + failure rule -> decisions, single or batch, sync or async."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from inspect import signature
from math import nextafter
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, get_args

from routellm_core.calibration.distribution import Calibration, HasFingerprint
from routellm_core.calibration.scoring import RouterLike
from routellm_core.checks import (
    Side,
    checked_count,
    checked_fraction,
    checked_seconds,
    checked_side,
    refuses_unknown_options,
    shown,
)
from routellm_core.errors import ConfigurationError, DeadlineError, PromptError, RouterError
from routellm_core.forks import renew_in_child
from routellm_core.policy.decision import Reason, RoutingDecision, RoutingRequest, new_id
from routellm_core.policy.scoring import Scores, Scoring
from routellm_core.policy.share import ShareWatch
from routellm_core.routers.base import Router
from routellm_core.routers.folder import RouterFolder
from routellm_core.routers.function import as_router

if TYPE_CHECKING:  # each is imported where an option asks for it
    from routellm_core.calibration.online import OnlineCalibration
    from routellm_core.policy.cache import WinRateCache
    from routellm_core.policy.exploration import Exploration
    from routellm_core.policy.limits import Limit

logger = logging.getLogger("routellm_core")

OnError = Literal["strong", "weak", "raise"]
_VERSION_DIGITS = 12

_MAX_USER_CHARS = 128
# Reasons of strong calls that the writer of a prompt can bring about without any win rate.
_UNSCORED = frozenset({"sticky", "no_text", "error", "deadline"})
_FAILED = frozenset({"error", "deadline"})


class _Serving(NamedTuple):
    """What decides at one moment; replaced as a whole."""

    router: Router
    calibration: Calibration | None
    threshold: float
    strong_fraction: float | None
    online: OnlineCalibration | None
    scoring: Scoring
    cache: WinRateCache
    version: str  # of the router
    fingerprint: str  # of the router when this was made: reading it hashes all weights, or asks a store
    watch: ShareWatch | None  # of the share that is wanted and that nothing keeps

    def has_router_of(self, other: _Serving) -> bool:
        """Whether the routers of both are the same one, or equal."""
        return self.router is other.router or self.fingerprint == other.fingerprint


class _Known(NamedTuple):
    """A router's name and fingerprint, which is read once."""

    name: str
    fingerprint: str


@refuses_unknown_options
class RoutingPolicy:
    """Decides each call: strong when the router's win rate >= threshold.

    The threshold is given, or comes from a calibration for a wanted share of strong calls. One policy serves any
    number of threads, event loops and forked processes. Win rates of recent prompts are kept (by a hash of the prompt,
    not its text).

    When the router fails on a prompt or misses the deadline, `on_error` decides that call: the named side answers and
    the decision says ``reason="error"`` (or ``"deadline"``), or the error is raised. The other prompts of a batch keep
    their own win rates. A router that misses several deadlines in a row is left alone for a while, and its calls are
    decided at once. Input that is not a prompt always raises.

    Args:
        router: What predicts win rates: a `Router`, the name of one for `load_router`, a function from a list of
            prompts to their win rates, or any object with ``win_rates(prompts)``; None is the bundled default. A
            `RouterFolder` is followed: a version that is put into use later takes over between two calls.
        threshold: Number in [0, 1]. Give either this or `strong_fraction`.
        strong_fraction: Wanted share of strong calls in [0, 1], through `calibration` or the router's own.
        calibration: Distribution of this router's win rates on prompts like yours.
        on_error: ``"strong"`` (the safe side), ``"weak"`` or ``"raise"``.
        deadline: Seconds that the router may take per decision or batch; None waits.
        cache_size: How many win rates to keep; 0 keeps none.
        online: True keeps the realised share at `strong_fraction` while traffic changes, by an `OnlineCalibration`
            that starts from the calibration; or a ready one (restored from its file, say). It sets the threshold of
            every call that gives none itself.
        explore: Chance in [0, 1] that a fair coin decides a call in place of its win rate, so that both sides are seen
            on every kind of prompt; for feedback and replay. The share of strong calls stays as wanted.
        explore_band: Win rates ``(low, high)`` within which calls are explored; None explores all.
        observe: ``"strong"`` or ``"weak"``: this side answers every call, and the decision records what its win rate
            and the threshold are: a first week without risk. None decides.
        limits: `SpendLimit` and `ShareLimit` objects that may turn a strong call into a weak one.

    Raises:
        ConfigurationError: A value is not allowed, both or neither of `threshold` and `strong_fraction` are given,
            or `strong_fraction` has no calibration to go by.
    """

    def __init__(
        self,
        router: RouterLike | RouterFolder | str | None = None,
        *,
        threshold: float | None = None,
        strong_fraction: float | None = None,
        calibration: Calibration | None = None,
        on_error: OnError = "strong",
        deadline: float | None = None,
        cache_size: int = 4096,
        online: bool | OnlineCalibration = False,
        explore: float = 0.0,
        explore_band: tuple[float, float] | None = None,
        observe: Side | None = None,
        limits: Sequence[Limit] = (),
    ) -> None:
        if threshold is not None and strong_fraction is not None:
            raise ConfigurationError(
                f"threshold={shown(threshold)} and strong_fraction={shown(strong_fraction)} are both given: each sets "
                "the threshold; give one of them"
            )
        if threshold is None and strong_fraction is None:
            raise ConfigurationError(
                "neither threshold nor strong_fraction is given: set strong_fraction=0.3 for about 30 % strong calls, "
                "or a threshold between 0 and 1"
            )
        if on_error not in get_args(OnError):
            raise ConfigurationError(f"on_error={shown(on_error)}: expected 'strong', 'weak' or 'raise'")
        self.on_error: OnError = on_error
        self.deadline = checked_seconds(deadline, "deadline", without="to wait")
        self.cache_size = checked_count(cache_size, "cache_size", least=0)
        self.exploration = _checked_exploration(explore, explore_band)
        self.observe = None if observe is None else checked_side(observe, "observe")
        self.limits = _checked_limits(limits)
        self._plain = not self.limits and self.observe is None and self.exploration is None
        self._without_usage: set[Side] = set()  # sides that a warning has been logged for
        # policies of the routed models that are a side of one with this policy, see `policy.tiers`
        self._tiers: dict[tuple[Side, int], RoutingPolicy] = {}
        self._renew_lock()
        self._following = None
        if isinstance(router, RouterFolder):
            from routellm_core.policy.following import Following

            self._following = Following(router, router.current)
            router = router.load(self._following.version)
        self._serving = self._made(as_router(router), calibration, threshold, strong_fraction, online)

    # --- what decides, all of one moment ---

    @property
    def router(self) -> Router:
        """The router in use."""
        return self._serving.router

    @property
    def calibration(self) -> Calibration | None:
        """The calibration in use: the one that was given, or the router's own."""
        return self._serving.calibration

    @property
    def router_fingerprint(self) -> str:
        """The router's fingerprint as of now; while its store cannot be asked, the last one that is known."""
        serving = self._serving
        return _fingerprint_of(serving.router, serving)

    @property
    def threshold(self) -> float:
        """The threshold of every call that has none of its own; with `online` the one to start from."""
        return self._serving.threshold

    @property
    def strong_fraction(self) -> float | None:
        """The wanted share of strong calls; None where the threshold was given."""
        return self._serving.strong_fraction

    @property
    def online(self) -> OnlineCalibration | None:
        """What moves the threshold with the traffic, if anything does."""
        return self._serving.online

    @cached_property
    def needs_usage(self) -> bool:
        """Whether a limit goes by what calls use, so that `spent` has to be called."""
        return any(limit.needs_usage for limit in self.limits)

    @cached_property
    def limit_keys(self) -> frozenset[str]:
        """Names of the call settings that the limits ask for, such as ``"user_id"``."""
        return frozenset(limit.key for limit in self.limits if limit.key is not None)

    def _current(self) -> _Serving:
        """What decides now, after a look at whether a version of the router is to take over."""
        if self._following is not None:
            self._following.look(self)
        return self._serving

    def replace(
        self,
        *,
        router: RouterLike | str | None = None,
        calibration: Calibration | None = None,
        threshold: float | None = None,
        strong_fraction: float | None = None,
    ) -> None:
        """Put another router, calibration or target into a running app, at one moment for all threads.

        Calls that are being decided end with what they began with. Options that are not given stay as they are, but a
        calibration belongs to its router: with a new router and no calibration, the router's own is used. Win rates
        that are kept are kept for the same router only, and an online calibration starts anew.

        Raises:
            ConfigurationError: As for the constructor; then nothing has changed.
        """
        if threshold is not None and strong_fraction is not None:
            raise ConfigurationError(
                f"threshold={shown(threshold)} and strong_fraction={shown(strong_fraction)} are both given: give one "
                "of them"
            )
        with self._replacing:
            before = self._serving
            new = before.router if router is None else as_router(router)
            if router is None and calibration is None:
                calibration = before.calibration
            if threshold is None and strong_fraction is None:
                strong_fraction = before.strong_fraction
                threshold = before.threshold if strong_fraction is None else None
            online = before.online is not None and strong_fraction is not None
            serving = self._made(new, calibration, threshold, strong_fraction, online, before)
            if serving.has_router_of(before):
                serving = serving._replace(cache=before.cache)
            self._serving = serving

    def _made(
        self,
        router: Router,
        calibration: Calibration | None,
        threshold: float | None,
        strong_fraction: float | None,
        online: bool | OnlineCalibration | None,
        before: _Serving | None = None,
    ) -> _Serving:
        """Check what decides, as a whole; `before` is what has decided until now."""
        from routellm_core.policy.cache import WinRateCache  # loads OpenSSL for its hashes

        if threshold is not None:
            threshold = checked_fraction(threshold, "threshold")
        if strong_fraction is not None:
            strong_fraction = checked_fraction(strong_fraction, "strong_fraction")
        if calibration is not None and not isinstance(calibration, Calibration):
            raise ConfigurationError(
                f"calibration={shown(calibration)}: expected a Calibration; read a saved one with "
                "Calibration.load(path)"
            )
        known = _Known(router.name, _fingerprint_of(router, before))
        if calibration is not None:
            calibration.check_router(known)
        else:
            calibration = router.calibration
        following = _checked_online(online, known, calibration, strong_fraction)
        if strong_fraction is not None:
            if calibration is None:
                raise ConfigurationError(
                    f"strong_fraction={strong_fraction} needs a calibration and router {router.name!r} has none: pass "
                    "calibration=Calibration.fit(router, prompts), with some hundreds of prompts like yours, or a "
                    "threshold"
                )
            threshold = (
                calibration.threshold(strong_fraction=strong_fraction)
                if self.exploration is None
                else self.exploration.threshold(calibration, strong_fraction)
            )
        assert threshold is not None
        return _Serving(
            router,
            calibration,
            threshold,
            strong_fraction,
            following,
            Scoring(router, self.deadline),
            WinRateCache(self.cache_size),
            known.fingerprint[:_VERSION_DIGITS],
            known.fingerprint,
            ShareWatch(strong_fraction) if strong_fraction is not None and following is None else None,
        )

    @classmethod
    def of(cls, policy: RoutingPolicy | None = None, **options: Any) -> RoutingPolicy:
        """The policy that an adapter's options mean: `policy` itself, or one built from the others.

        Args:
            policy: A ready policy; then no other option may be given.
            **options: Arguments of `RoutingPolicy`; one that is at its default counts as not given, since frameworks
                rebuild their models with every field.

        Raises:
            ConfigurationError: A policy and another option, or options that do not make one.
        """
        given = {name: value for name, value in options.items() if not _is_default(name, value)}
        if policy is None:
            return cls(**given)
        if not isinstance(policy, RoutingPolicy):
            raise ConfigurationError(f"policy={shown(policy)}: expected a RoutingPolicy")
        if given:
            raise ConfigurationError(
                f"policy= and {', '.join(f'{name}=' for name in given)} are both given: the policy "
                "holds these already; give one or the other"
            )
        return policy

    def decide(
        self, prompt: str | RoutingRequest, *, threshold: float | None = None, force: Side | None = None
    ) -> RoutingDecision:
        """Decide one call.

        Args:
            prompt: The prompt, any str; or a `RoutingRequest`.
            threshold: Threshold for this call alone.
            force: ``"strong"`` or ``"weak"``: settle the side without asking the router.

        Raises:
            PromptError: `prompt` is neither a str nor a `RoutingRequest` with texts.
            ConfigurationError: `threshold` or `force` is not allowed, or contradicts that of the `RoutingRequest`.
            RouterError: The router failed and ``on_error="raise"``.
        """
        if threshold is None and force is None:
            serving = self._current()
            if (text := self._plain_text(prompt, serving)) is not None:
                score: float | Exception | None = serving.cache.get(text)
                if score is None:
                    score = serving.scoring.score([text])[0]
                    self._add(serving, {serving.cache.key(text): score})
                return self._plain_decision(score, serving)
        return self.decide_batch([prompt], threshold=threshold, force=force)[0]

    def decide_batch(
        self, prompts: Sequence[str | RoutingRequest], *, threshold: float | None = None, force: Side | None = None
    ) -> list[RoutingDecision]:
        """Decide a batch of n >= 1 calls with at most one `win_rates` call; decision i is for prompt i.

        Only when that call fails are there more of them, which find the prompts that the router fails on.
        """
        batch = self._batch(prompts, threshold, force)
        if batch.missing:
            batch.add(batch.serving.scoring.score(batch.missing))
        return batch.decisions()

    async def adecide(
        self, prompt: str | RoutingRequest, *, threshold: float | None = None, force: Side | None = None
    ) -> RoutingDecision:
        """Like `decide`, without blocking the event loop; concurrent calls share one call of the router."""
        if threshold is None and force is None:
            serving = self._current()
            if (text := self._plain_text(prompt, serving)) is not None:
                score: float | Exception | None = serving.cache.get(text)
                if score is None:
                    score = (await serving.scoring.ascore([text]))[0]
                    self._add(serving, {serving.cache.key(text): score})
                return self._plain_decision(score, serving)
        return (await self.adecide_batch([prompt], threshold=threshold, force=force))[0]

    async def adecide_batch(
        self, prompts: Sequence[str | RoutingRequest], *, threshold: float | None = None, force: Side | None = None
    ) -> list[RoutingDecision]:
        """Like `decide_batch`, without blocking the event loop."""
        batch = self._batch(prompts, threshold, force)
        if batch.missing:
            batch.add(await batch.serving.scoring.ascore(batch.missing))
        return batch.decisions()

    def _batch(
        self, prompts: Sequence[str | RoutingRequest], threshold: float | None, force: Side | None
    ) -> _Batch | _PlainBatch:
        if threshold is None and force is None and isinstance(prompts, list | tuple) and prompts:
            serving = self._current()
            texts = [text for prompt in prompts if (text := self._plain_text(prompt, serving)) is not None]
            if len(texts) == len(prompts):
                return _PlainBatch(self, serving, texts)
        return _Batch(self, prompts, threshold, force)

    def _plain_text(self, prompt: str | RoutingRequest, serving: _Serving) -> str | None:
        """The text of a call that only its win rate and the policy's threshold decide; None for any other call.

        Most calls are like that, so `decide` and `adecide` take a shorter path for them than for a batch.
        """
        if not self._plain or serving.online is not None:
            return None
        if isinstance(prompt, RoutingRequest):
            settled = prompt.force is not None or prompt.threshold is not None or prompt.win_rate is not None
            if settled or not isinstance(prompt.prompts, tuple) or len(prompt.prompts) != 1:
                return None
            prompt = prompt.prompts[0]
        return prompt if isinstance(prompt, str) else None

    def _plain_decision(self, score: float | Exception, serving: _Serving) -> RoutingDecision:
        threshold = serving.threshold
        if isinstance(score, Exception):
            return self._after_failure(score, threshold, serving)
        if serving.watch is not None:
            serving.watch.note(strong=score >= threshold)
        return RoutingDecision.by_win_rate(score, threshold, serving.router.name, serving.version)

    def _add(self, serving: _Serving, scores: dict[bytes, Any]) -> None:
        """Cache new win rates; log failures, or raise the first one if `on_error` says so."""
        failures = [score for score in scores.values() if isinstance(score, Exception)]
        if not failures:
            serving.cache.keep(scores)
            return
        serving.cache.keep({key: score for key, score in scores.items() if not isinstance(score, Exception)})
        name, first = serving.router.name, failures[0]
        if self.on_error == "raise":
            # from None: what the router raised may quote the prompt
            if isinstance(first, RouterError):
                raise first from None
            raise RouterError(f"router {name!r} failed: {type(first).__name__}") from None
        # the class alone, for the same reason
        logger.warning(
            "router %r failed on %d of %d prompts (%s); on_error=%r decides them",
            name,
            len(failures),
            len(scores),
            type(first).__name__,
            self.on_error,
        )

    def _after_failure(self, error: Exception, threshold: float, serving: _Serving) -> RoutingDecision:
        side: Side = self.observe or ("weak" if self.on_error == "weak" else "strong")
        reason: Reason = "deadline" if isinstance(error, DeadlineError) else "error"
        name, version = serving.router.name, serving.version
        return RoutingDecision(side, None, threshold, name, reason, error=type(error).__name__, router_version=version)

    def spent(
        self,
        request: RoutingRequest,
        side: Side,
        input_tokens: int | None,
        output_tokens: int | None,
        *,
        model: str | None = None,
    ) -> None:
        """Tell the limits what a call used; both adapters do so after each answer of a model.

        Args:
            request: What was decided on; its `keys` say whose call it is.
            side: The side that answered.
            input_tokens: Tokens that the model has read; None where its provider reports no usage. Such a call counts
                as nothing, and the first one logs a warning.
            output_tokens: Tokens that it has written, likewise.
            model: Name of the model, for limits with prices by model; None where it is unknown.
        """
        if input_tokens is None or output_tokens is None:
            self._warn_of_missing_usage(side)
            return
        for limit in self.limits:
            limit.spent(_user(limit, request), side, input_tokens, output_tokens, model=model)

    def _warn_of_missing_usage(self, side: Side) -> None:
        if self.needs_usage and side not in self._without_usage:
            self._without_usage.add(side)
            logger.warning(
                "an answer of the %s model reports no usage: SpendLimit counts it as nothing; let the model report it "
                "(stream_usage=True for streams of ChatOpenAI), or call policy.spent(...) yourself",
                side,
            )

    def turn_to_strong(self, request: RoutingRequest, decision: RoutingDecision) -> bool:
        """Whether a call that was decided weak may go to the strong side after all; if so, it counts as a strong one.

        For what the writer of a prompt can bring about: a conversation is held at the strong model, a prompt is too
        long for the weak one, or a check refuses the weak answer. The limits may forbid it, and an online calibration
        keeps the share of the sides that answer. A failover in an outage is counted by nobody.

        Args:
            request: What was decided on.
            decision: What was decided.
        """
        if not self.allows_strong(request, decision):
            return False
        for limit in self.limits:
            limit.turned_to_strong(_user(limit, request))
        online = self._serving.online
        if online is not None and request.threshold is None and decision.win_rate is not None:
            online.correct(1)
        return True

    def allows_strong(self, request: RoutingRequest, decision: RoutingDecision) -> bool:
        """Whether the limits let a call that was decided weak go to the strong side after all."""
        if decision.reason == "limit":
            return False
        return not self.limits or self._refusing(request, decision.win_rate or 0.0) is None

    def _refusing(self, request: RoutingRequest, win_rate: float) -> Limit | None:
        """The limit that keeps a strong call of this win rate from being strong, if one does."""
        if self.observe is not None:
            return None
        calibration = self.calibration
        for limit in self.limits:
            if not limit.allows(_user(limit, request), win_rate, calibration):
                return limit
        return None

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # frameworks deep-copy their models; a policy is safe to share and its router may be gigabytes
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**{name: value for name, value in self.__dict__.items() if name != "_replacing"}, "_tiers": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._renew_lock()

    def _renew_lock(self) -> None:
        # not one that a fork waits for: a router may be loading, and what decides is replaced in one step
        self._replacing = threading.Lock()
        renew_in_child(self, RoutingPolicy._renew_lock)

    def __repr__(self) -> str:
        target = "" if self.strong_fraction is None else f", strong_fraction={self.strong_fraction}"
        return f"RoutingPolicy(router={self.router.name!r}, threshold={self.threshold:.6g}{target})"


class _Batch:
    """The state of one decide call: which texts need a score, and what became of them."""

    def __init__(
        self,
        policy: RoutingPolicy,
        prompts: Sequence[str | RoutingRequest],
        threshold: float | None,
        force: Side | None,
    ) -> None:
        self.policy = policy
        self.serving = policy._current()  # one moment's, until the last decision is made
        self.requests = _requests(prompts, threshold, force)
        if policy.limits:
            self.requests = [self._settled(request) for request in self.requests]
        # no text is hashed and no cache entry touched for a call that is settled already
        hashed = self.serving.cache.key
        self.keys = [
            tuple(map(hashed, r.prompts)) if r.force is None and r.win_rate is None else () for r in self.requests
        ]
        self.scores: dict[bytes, Any] = self.serving.cache.found([key for keys in self.keys for key in keys])
        unscored: dict[bytes, str] = {}
        for request, keys in zip(self.requests, self.keys, strict=True):
            for key, text in zip(keys, request.prompts if keys else (), strict=True):
                if key not in self.scores:
                    unscored.setdefault(key, text)
        self._missing_keys = list(unscored)
        self.missing = list(unscored.values())

    def _settled(self, request: RoutingRequest) -> RoutingRequest:
        """Settle a call beyond a limit, which needs no router."""
        if request.force is not None and request.reason == "forced":
            return request
        for limit in self.policy.limits:
            side = limit.settled(_user(limit, request))
            if side is not None:
                return replace(request, force=side, reason="limit", detail=type(limit).__name__)
        return request

    def add(self, scores: Scores) -> None:
        fresh: dict[bytes, Any] = dict(zip(self._missing_keys, scores, strict=True))
        self.scores.update(fresh)
        self.policy._add(self.serving, fresh)

    def decisions(self) -> list[RoutingDecision]:
        if not self.policy.limits:
            return [self._decision(request, keys) for request, keys in zip(self.requests, self.keys, strict=True)]
        return [self._limited(request, keys) for request, keys in zip(self.requests, self.keys, strict=True)]

    def _limited(self, request: RoutingRequest, keys: tuple[bytes, ...]) -> RoutingDecision:
        # one by one: what a limit notes of a call counts for the next one of the same batch
        decision = self._decision(request, keys)
        # a detail says what binds the call to the strong side, such as a stored response that only its server has
        if decision.model == "strong" and decision.reason in _UNSCORED and decision.detail is None:
            limit = self.policy._refusing(request, 0.0)
            if limit is not None:
                decision = replace(decision, model="weak", reason="limit", detail=type(limit).__name__, p_strong=0.0)
        for limit in self.policy.limits:
            limit.decided(_user(limit, request), decision.model)
        return decision

    def _decision(self, request: RoutingRequest, keys: tuple[bytes, ...]) -> RoutingDecision:
        policy, serving = self.policy, self.serving
        threshold = serving.threshold if request.threshold is None else request.threshold
        name, version = serving.router.name, serving.version
        if request.force is not None:
            side = request.force
            if policy.observe is not None and request.reason == "no_text":
                side = policy.observe  # nothing but the lack of a text speaks for the strong side
            # a router that failed at an outer level is not asked again: its failure is the reason here, too
            error, detail = (None, request.detail) if request.reason not in _FAILED else (request.detail, None)
            return RoutingDecision(
                side, None, threshold, name, request.reason, error=error, detail=detail, router_version=version
            )
        win_rate = self._hardest(keys) if request.win_rate is None else request.win_rate
        if isinstance(win_rate, Exception):
            return policy._after_failure(win_rate, threshold, serving)
        online = serving.online if request.threshold is None else None
        if online is not None:
            threshold = online.threshold
        refusing = policy._refusing(request, win_rate) if policy.limits and win_rate >= threshold else None
        if online is not None:
            # a refused call counts as one just below the threshold: it must not raise that of the others
            threshold = online.observe(max(0.0, nextafter(threshold, 0.0)) if refusing else win_rate)
        elif serving.watch is not None and request.threshold is None:
            serving.watch.note(strong=win_rate >= threshold)
        if refusing is not None:
            detail = type(refusing).__name__
            return RoutingDecision("weak", win_rate, threshold, name, "limit", detail=detail, router_version=version)
        return self._by_win_rate(win_rate, threshold, online)

    def _hardest(self, keys: tuple[bytes, ...]) -> float | Exception:
        """The highest win rate of a call's texts, or the error of one that the router failed on."""
        hardest = 0.0
        for key in keys:
            score = self.scores[key]
            if isinstance(score, Exception):
                return score
            if score > hardest:
                hardest = score
        return hardest

    def _by_win_rate(self, win_rate: float, threshold: float, online: OnlineCalibration | None) -> RoutingDecision:
        policy, name, version = self.policy, self.serving.router.name, self.serving.version
        side: Side = "strong" if win_rate >= threshold else "weak"
        if policy.observe is not None:
            return RoutingDecision(policy.observe, win_rate, threshold, name, "observed", router_version=version)
        if policy.exploration is None:
            return RoutingDecision.by_win_rate(win_rate, threshold, name, version)
        call = new_id()
        taken, by_coin, p_strong = policy.exploration.drawn(call, win_rate, side)
        if online is not None and taken != side:
            online.correct(1 if taken == "strong" else -1)
        reason: Reason = "explored" if by_coin else "win_rate"
        return RoutingDecision(
            taken, win_rate, threshold, name, reason, p_strong=p_strong, router_version=version, id=call
        )


class _PlainBatch:
    """The state of one decide call in which only the win rates and the policy's threshold decide."""

    def __init__(self, policy: RoutingPolicy, serving: _Serving, texts: list[str]) -> None:
        self.policy = policy
        self.serving = serving
        self._keys = list(map(serving.cache.key, texts))
        self._scores: dict[bytes, Any] = serving.cache.found(self._keys)
        unscored = {key: text for key, text in zip(self._keys, texts, strict=True) if key not in self._scores}
        self._missing_keys = list(unscored)
        self.missing = list(unscored.values())

    def add(self, scores: Scores) -> None:
        fresh = dict(zip(self._missing_keys, scores, strict=True))
        self._scores.update(fresh)
        self.policy._add(self.serving, fresh)

    def decisions(self) -> list[RoutingDecision]:
        return [self.policy._plain_decision(self._scores[key], self.serving) for key in self._keys]


def _user(limit: Limit, request: RoutingRequest) -> str:
    """Whose call it is, for a limit; a long id as its digest, so that memory stays bounded."""
    value = None if limit.key is None or request.keys is None else request.keys.get(limit.key)
    user = "" if value is None else str(value)
    if len(user) <= _MAX_USER_CHARS:
        return user
    from hashlib import sha256

    return sha256(user.encode("utf-8", "surrogatepass")).hexdigest()


def _checked_exploration(explore: Any, band: Any) -> Exploration | None:
    if isinstance(explore, int | float) and explore == 0 and band is None:
        checked_fraction(explore, "explore")
        return None
    from routellm_core.policy.exploration import Exploration

    return Exploration.of(explore, band)


def _checked_limits(limits: Any) -> tuple[Limit, ...]:
    if isinstance(limits, list | tuple) and not limits:
        return ()
    from routellm_core.policy.limits import checked_limits

    return checked_limits(limits)


def _fingerprint_of(router: Router, before: _Serving | None) -> str:
    """The router's fingerprint; of the one in use, the last that is known while its store cannot be asked."""
    try:
        return router.fingerprint
    except Exception as exc:  # a store's driver may raise anything
        if before is None or before.router is not router:
            raise
        logger.warning(
            "the fingerprint of router %r cannot be read (%s); the last one that is known counts",
            router.name,
            type(exc).__name__,
        )
        return before.fingerprint


def _checked_online(
    online: bool | OnlineCalibration | None,
    router: HasFingerprint,
    calibration: Calibration | None,
    strong_fraction: float | None,
) -> OnlineCalibration | None:
    if online is False or online is None:
        return None
    from routellm_core.calibration.online import OnlineCalibration

    if not isinstance(online, bool | OnlineCalibration):
        raise ConfigurationError(f"online={shown(online)}: expected True, False or an OnlineCalibration")
    if strong_fraction is None:
        raise ConfigurationError("online= keeps a share on target: give strong_fraction=, not threshold=")
    if online is True:
        if calibration is None:
            raise ConfigurationError(
                f"online=True starts from a calibration and router {router.name!r} has none: pass "
                "calibration=Calibration.fit(router, prompts)"
            )
        return OnlineCalibration(calibration, strong_fraction)
    online.check_router(router)
    if online.strong_fraction != strong_fraction:
        raise ConfigurationError(
            f"strong_fraction={strong_fraction} but online= aims at {online.strong_fraction}: give one share"
        )
    return online


def _requests(prompts: Any, threshold: float | None, force: Side | None) -> list[RoutingRequest]:
    if isinstance(prompts, str | bytes):
        raise PromptError(
            f"prompts={type(prompts).__name__}: expected a sequence of strings; use decide for a single one"
        )
    if threshold is not None:
        threshold = checked_fraction(threshold, "threshold")
    if force is not None:
        force = checked_side(force, "force")
    try:
        items = list(prompts)
    except TypeError:
        # the type alone: it may hold prompt text
        raise PromptError(f"prompts is {type(prompts).__name__}: expected a non-empty sequence of strings") from None
    if not items:
        raise PromptError("prompts is empty: give at least one prompt")
    return [
        _request(item, f"prompts[{i}]" if len(items) > 1 else "prompt", threshold, force)
        for i, item in enumerate(items)
    ]


def _request(item: Any, where: str, threshold: float | None, force: Side | None) -> RoutingRequest:
    """One item as a request; `threshold` and `force` of the call fill what a `RoutingRequest` leaves open."""
    if isinstance(item, str):
        return RoutingRequest((item,), threshold, force)
    if not isinstance(item, RoutingRequest):
        raise PromptError(f"{where} is {type(item).__name__}, expected str; decode or convert it first")
    if item.threshold is not None:
        checked_fraction(item.threshold, "threshold")
    if item.force is not None:
        checked_side(item.force, "force")
    if item.win_rate is not None:
        checked_fraction(item.win_rate, "win_rate")
    if item.keys is not None and not isinstance(item.keys, Mapping):
        raise ConfigurationError(f"{where}.keys is a {type(item.keys).__name__}: expected a dict, or None")
    for name, ours, its in (("threshold", threshold, item.threshold), ("force", force, item.force)):
        if ours is not None and its is not None and ours != its:
            raise ConfigurationError(
                f"{name}={ours!r} is given beside a RoutingRequest with {name}={its!r}: give one of them"
            )
    request = item
    if threshold is not None or force is not None:
        request = replace(
            item,
            threshold=item.threshold if threshold is None else threshold,
            force=item.force if force is None else force,
        )
    if request.force is None and request.win_rate is None and not _are_texts(item.prompts):
        # the type alone: it may hold prompt text
        what = "empty" if item.prompts == () else f"a {type(item.prompts).__name__}"
        raise PromptError(f"{where}.prompts is {what}: expected a tuple of one str or more")
    return request


def _are_texts(prompts: Any) -> bool:
    return isinstance(prompts, tuple | list) and bool(prompts) and all(isinstance(p, str) for p in prompts)


def _is_default(name: str, value: Any) -> bool:
    default = POLICY_DEFAULTS.get(name)
    return value is default or (type(value) is type(default) and bool(value == default))


# every option of a policy with its default
POLICY_DEFAULTS: dict[str, Any] = {
    name: parameter.default for name, parameter in signature(RoutingPolicy).parameters.items()
}
