"""RoutingPolicy: router + threshold + failure rule -> decisions, single or batch, sync or async."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from inspect import signature
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

from routellm_core.calibration.distribution import Calibration
from routellm_core.calibration.online import OnlineCalibration
from routellm_core.checks import Side, checked_count, checked_fraction, checked_seconds, checked_side
from routellm_core.errors import ConfigurationError, DeadlineError, PromptError, RouterError
from routellm_core.policy.decision import Reason, RoutingDecision, RoutingRequest
from routellm_core.routers.base import Router

if TYPE_CHECKING:
    from routellm_core.policy.coalescing import Coalescer
    from routellm_core.routers.base import WinRates

logger = logging.getLogger("routellm_core")

OnError = Literal["strong", "weak", "raise"]


class RoutingPolicy:
    """Decides each call: strong when the router's win rate >= threshold.

    The threshold is given, or comes from a calibration for a wanted share of strong calls. One policy serves any
    number of threads and event loops. Win rates of recent prompts are kept (by a hash of the prompt, not its text).

    When the router fails or misses the deadline, `on_error` decides: the named side answers and the decision says
    ``reason="error"`` (or ``"deadline"``), or the error is raised. Input that is not a prompt always raises.

    Args:
        router: A `Router` or the name of one for `load_router`; None is the bundled default.
        threshold: Number in [0, 1]. Give either this or `strong_fraction`.
        strong_fraction: Wanted share of strong calls in [0, 1], through `calibration` or the router's own.
        calibration: Distribution of this router's win rates on prompts like yours.
        on_error: ``"strong"`` (the safe side), ``"weak"`` or ``"raise"``.
        deadline: Seconds that the router may take per decision or batch; None waits.
        cache_size: How many win rates to keep; 0 keeps none.
        online: True keeps the realised share at `strong_fraction` while traffic changes, by an `OnlineCalibration`
            that starts from the calibration; or a ready one (restored from its file, say). It sets the threshold of
            every call that gives none itself.

    Raises:
        ConfigurationError: A value is not allowed, both or neither of `threshold` and `strong_fraction` are given,
            or `strong_fraction` has no calibration to go by.
    """

    def __init__(
        self,
        router: Router | str | None = None,
        *,
        threshold: float | None = None,
        strong_fraction: float | None = None,
        calibration: Calibration | None = None,
        on_error: OnError = "strong",
        deadline: float | None = None,
        cache_size: int = 4096,
        online: bool | OnlineCalibration = False,
    ) -> None:
        if threshold is not None and strong_fraction is not None:
            raise ConfigurationError(
                f"threshold={threshold!r} and strong_fraction={strong_fraction!r} are both given: each sets the "
                "threshold; give one of them"
            )
        if threshold is None and strong_fraction is None:
            raise ConfigurationError(
                "neither threshold nor strong_fraction is given: set strong_fraction=0.3 for about 30 % strong calls, "
                "or a threshold between 0 and 1"
            )
        if threshold is not None:
            threshold = checked_fraction(threshold, "threshold")
        if strong_fraction is not None:
            strong_fraction = checked_fraction(strong_fraction, "strong_fraction")
        if on_error not in get_args(OnError):
            raise ConfigurationError(f"on_error={on_error!r}: expected 'strong', 'weak' or 'raise'")
        deadline = checked_seconds(deadline, "deadline", without="to wait")
        cache_size = checked_count(cache_size, "cache_size", least=0)
        if calibration is not None and not isinstance(calibration, Calibration):
            raise ConfigurationError(
                f"calibration={calibration!r:.80}: expected a Calibration; read a saved one with Calibration.load(path)"
            )
        if router is None or isinstance(router, str):
            from routellm_core.routers import load_router

            router = load_router(router) if router is not None else load_router()
        if not isinstance(router, Router):
            raise ConfigurationError(
                f"router={router!r:.80}: expected a Router (a subclass of routellm_core.Router), a name for "
                "load_router, or None for the bundled one"
            )
        if calibration is not None:
            calibration.check_router(router)
        self.router = router
        self.calibration = calibration if calibration is not None else router.calibration
        self.strong_fraction = strong_fraction
        self.online = self._online(online)
        if threshold is None:
            assert strong_fraction is not None
            if self.calibration is None:
                raise ConfigurationError(
                    f"strong_fraction={strong_fraction} needs a calibration and router {router.name!r} has none: pass "
                    "calibration=Calibration.fit(router, prompts), or a threshold"
                )
            threshold = self.calibration.threshold(strong_fraction=strong_fraction)
        self.threshold: float = threshold
        self.on_error: OnError = on_error
        self.deadline = deadline
        self.cache_size = cache_size
        self._cache: OrderedDict[bytes, float] = OrderedDict()
        self._lock = threading.Lock()
        self._joint: Coalescer | None = None

    def _online(self, online: bool | OnlineCalibration) -> OnlineCalibration | None:
        if online is False or online is None:
            return None
        if not isinstance(online, bool | OnlineCalibration):
            raise ConfigurationError(f"online={online!r:.80}: expected True, False or an OnlineCalibration")
        if self.strong_fraction is None:
            raise ConfigurationError("online= keeps a share on target: give strong_fraction=, not threshold=")
        if online is True:
            if self.calibration is None:
                raise ConfigurationError(
                    f"online=True starts from a calibration and router {self.router.name!r} has none: pass "
                    "calibration=Calibration.fit(router, prompts)"
                )
            return OnlineCalibration(self.calibration, self.strong_fraction)
        online.check_router(self.router)
        if online.strong_fraction != self.strong_fraction:
            raise ConfigurationError(
                f"strong_fraction={self.strong_fraction} but online= aims at {online.strong_fraction}: give one share"
            )
        return online

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
            raise ConfigurationError(f"policy={policy!r:.80}: expected a RoutingPolicy")
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
        return self.decide_batch([prompt], threshold=threshold, force=force)[0]

    def decide_batch(
        self, prompts: Sequence[str | RoutingRequest], *, threshold: float | None = None, force: Side | None = None
    ) -> list[RoutingDecision]:
        """Decide a batch of n >= 1 calls with at most one `win_rates` call; decision i is for prompt i."""
        batch = _Batch(self, prompts, threshold, force)
        if batch.missing:
            try:
                batch.add(self._score(batch.missing))
            except Exception as exc:
                batch.fail(exc)
        return batch.decisions()

    async def adecide(
        self, prompt: str | RoutingRequest, *, threshold: float | None = None, force: Side | None = None
    ) -> RoutingDecision:
        """Like `decide`, without blocking the event loop; concurrent calls share one call of the router."""
        return (await self.adecide_batch([prompt], threshold=threshold, force=force))[0]

    async def adecide_batch(
        self, prompts: Sequence[str | RoutingRequest], *, threshold: float | None = None, force: Side | None = None
    ) -> list[RoutingDecision]:
        """Like `decide_batch`, without blocking the event loop."""
        batch = _Batch(self, prompts, threshold, force)
        if batch.missing:
            try:
                batch.add(await self._ascore(batch.missing))
            except Exception as exc:
                batch.fail(exc)
        return batch.decisions()

    def _score(self, prompts: list[str]) -> WinRates:
        if self.deadline is None:
            return self.router.win_rates(prompts)
        result: list[WinRates] = []
        failure: list[BaseException] = []

        def work() -> None:
            try:
                result.append(self.router.win_rates(prompts))
            except BaseException as exc:
                failure.append(exc)

        # a daemon thread: a router that hangs must not keep the process from ending
        thread = threading.Thread(target=work, name="routellm-router", daemon=True)
        thread.start()
        thread.join(self.deadline)
        if failure:
            raise failure[0]
        if not result:
            raise self._missed_deadline()
        return result[0]

    async def _ascore(self, prompts: list[str]) -> WinRates:
        if self._joint is None:
            # loads asyncio: loaded wherever this runs, and at the top most of what importing this package costs
            from routellm_core.policy.coalescing import Coalescer

            self._joint = Coalescer(self.router.awin_rates)
        if self.deadline is None:
            return await self._joint(prompts)
        import asyncio

        # not wait_for: it would also turn a TimeoutError of the router itself into a missed deadline
        task = asyncio.ensure_future(self._joint(prompts))
        try:
            done, _ = await asyncio.wait({task}, timeout=self.deadline)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if not done:
            task.cancel()
            raise self._missed_deadline()
        return task.result()

    def _missed_deadline(self) -> DeadlineError:
        return DeadlineError(f"router {self.router.name!r} did not answer within deadline={self.deadline} s")

    def _cached(self, keys: Sequence[bytes]) -> dict[bytes, float]:
        found = {}
        with self._lock:
            for key in keys:
                value = self._cache.get(key)
                if value is not None:
                    self._cache.move_to_end(key)
                    found[key] = value
        return found

    def _remember(self, items: dict[bytes, float]) -> None:
        if not self.cache_size:
            return
        with self._lock:
            for key, value in items.items():
                self._cache[key] = value
                self._cache.move_to_end(key)
            while len(self._cache) > self.cache_size:
                self._cache.popitem(last=False)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # frameworks deep-copy their models; a policy is safe to share and its router may be gigabytes
        return self

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        del state["_lock"], state["_cache"], state["_joint"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._cache = OrderedDict()
        self._lock = threading.Lock()
        self._joint = None

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
        self.requests = _requests(prompts, threshold, force)
        self.error: Exception | None = None
        # no text is hashed and no cache entry touched for a call that is settled already
        self.keys = [tuple(_key(p) for p in r.prompts) if r.force is None else () for r in self.requests]
        self.win_rates = policy._cached([k for keys in self.keys for k in keys]) if policy.cache_size else {}
        unscored: dict[bytes, str] = {}
        for request, keys in zip(self.requests, self.keys, strict=True):
            for key, text in zip(keys, request.prompts if keys else (), strict=True):
                if key not in self.win_rates:
                    unscored.setdefault(key, text)
        self._missing_keys = list(unscored)
        self.missing = list(unscored.values())

    def add(self, win_rates: WinRates) -> None:
        fresh = dict(zip(self._missing_keys, win_rates.tolist(), strict=True))
        self.win_rates.update(fresh)
        self.policy._remember(fresh)

    def fail(self, exc: Exception) -> None:
        policy = self.policy
        if policy.on_error == "raise":
            if isinstance(exc, RouterError):
                raise exc
            raise RouterError(f"router {policy.router.name!r} failed: {type(exc).__name__}") from exc
        self.error = exc
        # the class alone: an error's message may quote the prompt
        logger.warning(
            "router %r failed (%s); on_error=%r decides", policy.router.name, type(exc).__name__, policy.on_error
        )

    def decisions(self) -> list[RoutingDecision]:
        return [self._decision(request, keys) for request, keys in zip(self.requests, self.keys, strict=True)]

    def _decision(self, request: RoutingRequest, keys: tuple[bytes, ...]) -> RoutingDecision:
        policy = self.policy
        threshold = policy.threshold if request.threshold is None else request.threshold
        name = policy.router.name
        if request.force is not None:
            return RoutingDecision(request.force, None, threshold, name, request.reason, detail=request.detail)
        if self.error is not None and any(key not in self.win_rates for key in keys):
            side: Side = "weak" if policy.on_error == "weak" else "strong"
            reason: Reason = "deadline" if isinstance(self.error, DeadlineError) else "error"
            return RoutingDecision(side, None, threshold, name, reason, error=type(self.error).__name__)
        win_rate = max(self.win_rates[key] for key in keys)
        if policy.online is not None and request.threshold is None:
            threshold = policy.online.observe(win_rate)
        return RoutingDecision("strong" if win_rate >= threshold else "weak", win_rate, threshold, name)


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
        raise PromptError(f"prompts={prompts!r:.80}: expected a non-empty sequence of strings") from None
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
    if request.force is None and not _are_texts(item.prompts):
        # the type alone: it may hold prompt text
        what = "empty" if item.prompts == () else f"a {type(item.prompts).__name__}"
        raise PromptError(f"{where}.prompts is {what}: expected a tuple of one str or more")
    return request


def _are_texts(prompts: Any) -> bool:
    return isinstance(prompts, tuple | list) and bool(prompts) and all(isinstance(p, str) for p in prompts)


def _is_default(name: str, value: Any) -> bool:
    default = POLICY_DEFAULTS.get(name)
    return value is default or (type(value) is type(default) and bool(value == default))


def _key(prompt: str) -> bytes:
    # a hash: the cache must hold neither the text of prompts nor megabytes of it
    return hashlib.blake2b(prompt.encode("utf-8", "surrogatepass"), digest_size=16).digest()


# every option of a policy with its default
POLICY_DEFAULTS: dict[str, Any] = {
    name: parameter.default for name, parameter in signature(RoutingPolicy).parameters.items()
}
