"""Routing: from the options of a model and the settings of one call to a decision; the same for both adapters."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import partial
from typing import Any, NamedTuple, Self, TypeAlias

from routellm_core.checks import Side, check_options, checked_count, checked_flag, checked_fraction, checked_side, shown
from routellm_core.errors import ConfigurationError, PromptError
from routellm_core.policy.acceptance import DEFAULT_SECONDS as ACCEPT_SECONDS
from routellm_core.policy.acceptance import Acceptance, Cascade, WeakAnswer
from routellm_core.policy.capability import capability_gap, checked_profile
from routellm_core.policy.cooldown import DEFAULT_SECONDS, Cooldown
from routellm_core.policy.decision import RoutingDecision, RoutingRequest
from routellm_core.policy.options import CallLog, DecisionOptions, RoutingOptions
from routellm_core.policy.policy import POLICY_DEFAULTS, RoutingPolicy
from routellm_core.policy.route import OnUsage, Route
from routellm_core.policy.savings import CallCost, Price, checked_prices
from routellm_core.policy.setups import ModelNames, Setups
from routellm_core.policy.shadow import Shadow
from routellm_core.policy.stickiness import Stickiness

logger = logging.getLogger("routellm_core")

# what an adapter found to route on: a text, several of which the hardest decides, or a request that says more
RoutedOn: TypeAlias = str | Sequence[str] | RoutingRequest

# every option with its default, in the order in which they are documented
OPTION_DEFAULTS: dict[str, Any] = {
    "policy": None,
    **POLICY_DEFAULTS,
    "lookback": 1,
    "synthetic_markers": (),
    "allow_overrides": True,
    "route_on": None,
    "sticky": None,
    "failover": False,
    "cooldown": DEFAULT_SECONDS,
    "accept": None,
    "accept_threshold": 0.5,
    "accept_band": None,
    "accept_after": None,
    "accept_deadline": ACCEPT_SECONDS,
    "log": None,
    "shadow": 0.0,
    "prices": None,
    "weak_profile": None,
}
THRESHOLD_SETTING = "routellm_threshold"
FORCE_SETTING = "routellm_force"
_SETTINGS = (THRESHOLD_SETTING, FORCE_SETTING)
_SETTINGS_PREFIX = "routellm_"
# what identifies a conversation in the log, where `sticky` names nothing else
_CONVERSATION_SETTING = "thread_id"
POLICY_OPTIONS = frozenset({"policy", *POLICY_DEFAULTS})
DECISION_OPTIONS = DecisionOptions.__optional_keys__
ROUTING_OPTIONS = RoutingOptions.__optional_keys__


@dataclass(frozen=True, slots=True)
class CallSettings:
    """What holds for one call alone.

    Attributes:
        threshold: Threshold of this call; None takes the policy's.
        force: Side that this call goes to, whatever its win rate.
        conversation: Identifies the conversation, for `sticky` and the log.
        keys: Whose call it is, by the names that limits ask for.
        user: Whose call it is, for the log.
    """

    threshold: float | None = None
    force: Side | None = None
    conversation: str | None = None
    keys: Mapping[str, str] | None = None
    user: str | None = None


NO_SETTINGS = CallSettings()


class Decided(NamedTuple):
    """A decision with what it was made of.

    Attributes:
        decision: What was decided.
        asked: What was asked of the policy: a request, or the text of a call that needs no more than that.
        settings: Settings of the call.
    """

    decision: RoutingDecision
    asked: RoutingRequest | str
    settings: CallSettings

    @property
    def request(self) -> RoutingRequest:
        """What was asked of the policy, as a request."""
        return RoutingRequest.of_texts((self.asked,)) if isinstance(self.asked, str) else self.asked


@dataclass(frozen=True, slots=True)
class Routing:
    """The checked options of one routed model, and how a call becomes a decision.

    It holds no state of a call. An adapter says what it found in the call (the texts, and what the weak model lacks
    for it); the order in which these count is decided here, so that the adapters cannot differ.

    Attributes:
        policy: Decides.
        failover: Whether the other model may answer when the chosen one fails.
        cooldown: Which model has failed lately, and is passed over with `failover`; shared by all calls.
        lookback: How many human turns to look at.
        synthetic_markers: How texts of human turns begin that no human wrote, beyond the usual ones.
        allow_overrides: Whether a call may force a side or set its own threshold.
        route_on: The user's own way from an input to what it is routed on.
        sticky: Conversations that stay strong.
        acceptance: The check of weak answers.
        log: Where calls are recorded.
        shadow: Which calls the other side answers, too.
        prices: Prices by model or side, by which the cost of a call is known.
        weak_profile: What the user says of the weak model's abilities.
        level: How many routed models this one is a side within; see `policy.tiers`.
        keys_below: Call settings that limits of routed models on its sides ask for.
        model_names: Which models the answers name; shared by all copies.
    """

    policy: RoutingPolicy
    failover: bool = False
    cooldown: Cooldown | None = None
    lookback: int = 1
    synthetic_markers: tuple[str, ...] = ()
    allow_overrides: bool = True
    route_on: Any = None
    sticky: Stickiness | None = None
    acceptance: Acceptance | None = None
    log: CallLog | None = None
    shadow: Shadow | None = None
    prices: Mapping[str, Price] | None = None
    weak_profile: Mapping[str, Any] = field(default_factory=dict)
    level: int = 0
    keys_below: frozenset[str] = frozenset()
    model_names: ModelNames = field(default_factory=ModelNames, compare=False, repr=False)

    @classmethod
    def of(
        cls,
        options: RoutingOptions | DecisionOptions | Mapping[str, Any],
        *,
        owner: str,
        known: Collection[str] = ROUTING_OPTIONS,
        key_allowed: bool = False,
    ) -> Self:
        """Check the options that a constructor received.

        Args:
            options: The options by name; an absent one has its default, and one at its default counts as absent.
            owner: Name of the class that has them, for messages.
            known: Names of the options that this class has.
            key_allowed: Whether ``route_on=`` may be the key of a dict input.

        Raises:
            ConfigurationError: An option is unknown or has a value that is not allowed.
        """
        check_options(options, known=known, owner=owner)
        given: dict[str, Any] = {**OPTION_DEFAULTS, **options}
        routing = cls(
            policy=RoutingPolicy.of(given.pop("policy"), **{name: given[name] for name in POLICY_DEFAULTS}),
            failover=checked_flag(given["failover"], "failover"),
            cooldown=Cooldown.of(given["cooldown"]),
            lookback=checked_count(given["lookback"], "lookback", unit="human turns"),
            synthetic_markers=_checked_markers(given["synthetic_markers"]),
            allow_overrides=checked_flag(given["allow_overrides"], "allow_overrides"),
            route_on=_checked_route_on(given["route_on"], key_allowed=key_allowed),
            sticky=Stickiness.of(given["sticky"]),
            acceptance=Acceptance.of(
                given["accept"],
                threshold=given["accept_threshold"],
                band=given["accept_band"],
                after=given["accept_after"],
                deadline=given["accept_deadline"],
            ),
            log=_checked_log(given["log"]),
            shadow=_checked_shadow(given["shadow"], given["log"]),
            prices=checked_prices(given["prices"]) or getattr(given["log"], "prices", None),
            weak_profile=checked_profile(given["weak_profile"], "weak_profile"),
        )
        if "log" in known and routing.policy.observe is not None and routing.log is None:
            logger.warning(
                "%s: observe=%r without log=: what would have been decided is recorded nowhere but on the decision of "
                "each answer; give log=TrafficLog(...), too",
                owner,
                routing.policy.observe,
            )
        if "failover" not in known and routing.policy.needs_usage:
            logger.warning(
                "%s decides but does not run the models, so it cannot see what they use: call policy.spent(...) after "
                "each call, or its SpendLimit never counts anything",
                owner,
            )
        return routing

    def settings(self, given: Mapping[str, Any], messages: Callable[[], Any] | None = None) -> CallSettings:
        """Read the settings of one call.

        Args:
            given: Whatever the framework lets a caller say: ``routellm_threshold`` and ``routellm_force``, and the
                entries that `sticky` and the limits ask for, such as ``thread_id`` and ``user_id``.
            messages: Gives the call's messages, for a `sticky` that is a function of them.

        Raises:
            ConfigurationError: A value is not allowed, overrides are not, or a name is nearly one of these settings.
        """
        if not given and self.sticky is None:
            return NO_SETTINGS
        for name in given:
            if name.startswith(_SETTINGS_PREFIX) and name not in _SETTINGS:
                self._refuse_misspelt(name)
        threshold, force = given.get(THRESHOLD_SETTING), given.get(FORCE_SETTING)
        if not self.allow_overrides and (threshold is not None or force is not None):
            name = FORCE_SETTING if threshold is None else THRESHOLD_SETTING
            raise ConfigurationError(f"{name} is set for a call, but allow_overrides=False refuses it")
        if self.sticky is None:
            conversation = given.get(_CONVERSATION_SETTING)
        else:
            conversation = self.sticky.conversation(given, messages)
        user_key = self.user_key
        user = None if user_key is None else given.get(user_key)
        return CallSettings(
            None if threshold is None else checked_fraction(threshold, THRESHOLD_SETTING),
            None if force is None else checked_side(force, FORCE_SETTING),
            None if conversation is None else str(conversation),
            {key: str(given[key]) for key in self.limit_keys if given.get(key) is not None} or None,
            None if user is None else str(user),
        )

    def _refuse_misspelt(self, name: str) -> None:
        """Refuse a name that is nearly a setting's; others may be the user's own."""
        if name in self.limit_keys or name == self.user_key:
            return
        close = get_close_matches(name, _SETTINGS, n=1, cutoff=0.8)
        if close:
            raise ConfigurationError(
                f"{name} is set for a call, but there is no such setting: did you mean {close[0]}?"
            )

    @property
    def limit_keys(self) -> frozenset[str]:
        """Names of the call settings that limits ask for, here and at the levels below."""
        return self.policy.limit_keys | self.keys_below

    @property
    def user_key(self) -> str | None:
        """The call setting that tells the log whose call it is; None where no log asks."""
        return getattr(self.log, "user_key", None)

    def human_part(self, text: str) -> str:
        """What a human wrote of a human turn: the text, less what frameworks put there in the human's name."""
        return _human_part(text, self.synthetic_markers)

    def gap(
        self,
        needs: Iterable[str],
        weak: Mapping[str, Any] | None,
        strong: Mapping[str, Any] | None,
        input_tokens: Callable[[], int] | None = None,
    ) -> str | None:
        """Name what the weak model lacks for a call, by its profile and the user's `weak_profile`; else None.

        The arguments are those of `capability_gap`.
        """
        return capability_gap(needs, {**(weak or {}), **self.weak_profile}, strong, input_tokens)

    def request(
        self,
        settings: CallSettings,
        *,
        gap: Callable[[], str | None],
        texts: Callable[[], RoutedOn],
    ) -> RoutingRequest:
        """Turn a call into what the policy is asked.

        A forced side comes first, then what the weak model lacks, then the conversation's hold; only when none of
        these settles the call are its texts looked for.

        Args:
            settings: Settings of this call.
            gap: Names what the weak model lacks for this call.
            texts: Finds what the call is routed on.

        Raises:
            PromptError: `texts` gave no text.
        """
        if settings.force is not None:
            return RoutingRequest((), settings.threshold, settings.force, keys=settings.keys)
        lacking = gap()
        if lacking is not None:
            return RoutingRequest((), settings.threshold, "strong", "capability", lacking, settings.keys)
        if self.sticky is not None:
            held = self.sticky.before(settings.conversation, RoutingRequest((), settings.threshold, keys=settings.keys))
            if held.force is not None:
                return held
        return as_request(texts(), settings)

    def decide(self, request: RoutingRequest, settings: CallSettings) -> RoutingDecision:
        """Decide one call, and apply stickiness."""
        decision = self.policy.decide(request)
        return decision if self.sticky is None else self.noted(request, decision, settings)

    async def adecide(self, request: RoutingRequest, settings: CallSettings) -> RoutingDecision:
        """Like `decide`, without blocking the event loop."""
        decision = await self.policy.adecide(request)
        return decision if self.sticky is None else self.noted(request, decision, settings)

    def route(
        self,
        request: RoutingRequest,
        decision: RoutingDecision,
        *,
        is_broken: Callable[[Any], bool],
        answer_of: Callable[[Any], WeakAnswer] | None = None,
        messages: Any = None,
        on_settled: Callable[[RoutingDecision], None] | None = None,
        setups: Setups | None = None,
    ) -> Route[Any]:
        """The way of one call from its decision on; the arguments are those of `Route` and `Cascade`.

        Without `answer_of`, no answer is checked; nor is one where a limit keeps the strong side from answering.
        """
        cascade = None
        # with a check, too: a level above has to know how much of what it counted was for a refused answer
        counts = self.prices is not None or self.log is not None or self.acceptance is not None
        cost = CallCost(self.prices) if counts else None
        if self.acceptance is not None and answer_of is not None and self.policy.allows_strong(request, decision):
            cascade = Cascade(self.acceptance, answer_of, messages)
        return Route(
            decision,
            failover=self.failover,
            cooldown=self.cooldown,
            is_broken=is_broken,
            cascade=cascade,
            on_settled=on_settled,
            to_strong=partial(self.policy.turn_to_strong, request),
            on_usage=None if cost is None and not self.policy.needs_usage else self._on_usage(request, cost),
            cost=cost,
            setups=setups,
        )

    def _on_usage(self, request: RoutingRequest, cost: CallCost | None) -> OnUsage:
        """What is to know the tokens of each answer of a call: the limits, and the cost of the call."""
        spent = self.policy.spent if self.policy.needs_usage else None

        def used(side: Side, read: int | None, written: int | None, model: str | None) -> None:
            if cost is not None:
                cost.add(side, model, read, written)
            if spent is not None:
                spent(request, side, read, written, model=model)

        return used

    def recording(self, decided: Decided, *, step: int = 0) -> Any:
        """Begin to record a call in the log; None without one.

        Args:
            decided: The decision, and what it was made of.
            step: Which call this is of those that one decision holds for.
        """
        if self.log is None:
            return None
        prompts = decided.request.prompts
        return self.log.recording(
            decided.decision,
            prompt="\n\n".join(prompts) if prompts else None,
            conversation=decided.settings.conversation,
            shadow=self.shadow,
            step=step,
            user=decided.settings.user,
            prices=self.prices,
        )

    def noted(self, request: RoutingRequest, decision: RoutingDecision, settings: CallSettings) -> RoutingDecision:
        """Show stickiness a decision; it may turn a weak one of a held conversation into a strong one.

        It may not where a limit of the policy keeps the call from being strong.
        """
        if self.sticky is None:
            return decision
        held = self.sticky.after(settings.conversation, decision)
        if held.model != decision.model and not self.policy.turn_to_strong(request, decision):
            return decision
        return held


def as_request(found: Any, settings: CallSettings, parameter: str = "route_on") -> RoutingRequest:
    """Turn what an adapter or a ``route_on=`` function found into a request.

    The threshold of the call wins over the one of a `RoutingRequest`. Where no text has a character to judge, the call
    goes to the strong model with ``reason="no_text"``.

    Raises:
        PromptError: It is neither a text, nor several, nor a `RoutingRequest`.
        ConfigurationError: The request forces a side that does not exist.
    """
    if isinstance(found, str) and found and not found.isspace():
        return RoutingRequest.of_texts((found,), settings.threshold, settings.keys)
    if isinstance(found, RoutingRequest):
        if found.force is not None:
            checked_side(found.force, "force")
        return replace(
            found,
            threshold=found.threshold if settings.threshold is None else settings.threshold,
            keys={**(settings.keys or {}), **(found.keys or {})} or None,
        )
    texts = (found,) if isinstance(found, str) else tuple(found) if isinstance(found, list | tuple) else ()
    if not texts or not all(isinstance(text, str) for text in texts):
        # the type alone: the value may hold prompt text
        what = f"an empty {type(found).__name__}" if isinstance(found, list | tuple) and not found else None
        raise PromptError(
            f"{parameter} returned {what or type(found).__name__}: expected a str, a non-empty list of str, or a "
            "RoutingRequest"
        )
    if all(not text or text.isspace() for text in texts):
        # nothing says that the call is easy: an image alone, say, or results of tools
        return RoutingRequest((), settings.threshold, "strong", "no_text", keys=settings.keys)
    return RoutingRequest.of_texts(texts, settings.threshold, settings.keys)


# Human turns that no human wrote: what LangChain's and deepagents' summaries, coding agents and agents without tool
# messages put there. A tag takes what stands in it out of a longer text; any other marker is how the whole text begins.
_SYNTHETIC_MARKERS = (
    "<system-reminder>",
    "<tool_result>",
    "<function_results>",
    "Here is a summary of the conversation to date:",
    "TOOL RESPONSE:",
)


def _human_part(text: str, markers: Sequence[str]) -> str:
    for marker in (*_SYNTHETIC_MARKERS, *markers):
        if marker not in text:
            continue
        if marker.startswith("<") and marker.endswith(">"):
            text = _without_tags(text, marker)
        elif text.lstrip().startswith(marker):
            return ""
    return text


def _without_tags(text: str, opening: str) -> str:
    """The text without what stands in such tags; without a closing one, all of the rest."""
    closing = f"</{opening[1:]}"
    kept, found, rest = text.partition(opening)
    while found:
        after, found, rest = rest.partition(closing)[2].partition(opening)
        kept += after
    return kept.strip()


def _checked_markers(value: Any) -> tuple[str, ...]:
    if isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(m, str) and m for m in value):
        return tuple(value)
    raise ConfigurationError(
        f"synthetic_markers={shown(value)}: expected a list of texts, such as ['<reminder>', 'Summary so far:']"
    )


def _checked_route_on(value: Any, *, key_allowed: bool) -> Any:
    if value is None or callable(value) or (key_allowed and isinstance(value, str) and value):
        return value
    key = ", the key of a dict input," if key_allowed else ""
    raise ConfigurationError(
        f"route_on={shown(value)}: expected a function of the input, which returns the text to route on{key} or None"
    )


def _checked_log(value: Any) -> CallLog | None:
    if value is None or hasattr(value, "recording"):
        return value  # type: ignore[no-any-return]
    raise ConfigurationError(f"log={shown(value)}: expected a TrafficLog, such as TrafficLog('sqlite:///traffic.db')")


def _checked_shadow(value: Any, log: Any) -> Shadow | None:
    shadow = Shadow.of(value)
    if shadow is None:
        return None
    if log is None:
        raise ConfigurationError(
            f"shadow={shown(value)} needs a log for its answers: pass log=TrafficLog('sqlite:///traffic.db')"
        )
    if shadow.budget is not None and getattr(log, "prices", None) is None:
        raise ConfigurationError(
            f"shadow={shown(value)}: a budget needs prices: pass TrafficLog(..., prices={{MODEL: Price(...), ...}})"
        )
    return shadow
