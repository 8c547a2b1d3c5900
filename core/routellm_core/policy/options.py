"""The options of everything that routes: named, typed and described once, for both adapters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, TypedDict

from routellm_core.calibration import Calibration, OnlineCalibration
from routellm_core.checks import Side
from routellm_core.policy.acceptance import Accept
from routellm_core.policy.cooldown import Cooldown
from routellm_core.policy.decision import RoutingDecision, RoutingRequest
from routellm_core.policy.limits import Limit
from routellm_core.policy.policy import OnError, RoutingPolicy
from routellm_core.policy.savings import Price
from routellm_core.policy.shadow import Shadow
from routellm_core.policy.stickiness import Stickiness

RouteOn: TypeAlias = str | Callable[..., str | Sequence[str] | RoutingRequest]


class CallLog(Protocol):
    """Where routed calls are recorded: a `routellm_core.log.TrafficLog`."""

    def recording(
        self,
        decision: RoutingDecision,
        *,
        prompt: str | None = None,
        conversation: str | None = None,
        shadow: Shadow | None = None,
        step: int = 0,
        user: str | None = None,
        prices: Mapping[str, Price] | None = None,
    ) -> Any:
        """Begin to record a call that was just decided."""


class PolicyOptions(TypedDict, total=False):
    """Options that make the policy; every name and meaning is that of `RoutingPolicy`."""

    policy: RoutingPolicy | None
    """A ready `RoutingPolicy`, which several models may share; it excludes the other options of this group."""

    router: Any
    """What predicts win rates: a `Router`, the name of one, a `RouterFolder` (followed while the app runs), a function
    from prompts to win rates, or any object with ``win_rates(prompts)``; None is the bundled router."""

    calibration: Calibration | None
    """Distribution of this router's win rates on prompts like yours, for `strong_fraction`."""

    threshold: float | None
    """A call is strong when its win rate is at least this number in [0, 1]. Give this or `strong_fraction`."""

    strong_fraction: float | None
    """Wanted share of strong calls, in [0, 1]. Where the model is a side of another routed model it is a share of all
    calls, not of those that get there: on the weak side the calls next to those of the outer strong side, so that both
    shares sum to 1 at most; on the strong side a part of the outer share. See `routellm_core.policy.tiers`."""

    on_error: OnError
    """Who answers when the router fails: ``"strong"`` (the default), ``"weak"``, or ``"raise"``."""

    deadline: float | None
    """Seconds that the router may take for a decision or a batch of them; None waits."""

    cache_size: int
    """How many win rates of recent prompts to keep, by a hash of the prompt; 0 keeps none."""

    online: bool | OnlineCalibration
    """Whether the threshold follows the traffic, so that the share stays at `strong_fraction`."""

    explore: float
    """Chance that a fair coin decides a call in place of its win rate, for feedback and replay; 0 never."""

    explore_band: tuple[float, float] | None
    """Win rates (low, high) within which calls are explored; None explores all."""

    observe: Side | None
    """This side answers every call, and the decision records what would have been decided; None decides."""

    limits: Sequence[Limit]
    """`SpendLimit` and `ShareLimit` objects, which may turn a strong call into a weak one."""


class DecisionOptions(PolicyOptions, total=False):
    """Options of everything that decides: `PolicyOptions`, and what a call is routed on."""

    lookback: int
    """How many of the last human turns to look at; the hardest decides, so that "continue" is not an easy prompt."""

    route_on: RouteOn | None
    """What to route on instead: a function of the messages that returns a text, several texts (the hardest decides),
    or a `RoutingRequest`. Where the input is a dict, its key."""

    synthetic_markers: Sequence[str]
    """How texts begin that stand in a human turn though no human wrote them, beyond the usual ones (summaries, system
    reminders, results of tools): they are not what a call is routed on. ``"<tag>"`` also takes what stands in such
    tags out of a longer text."""

    allow_overrides: bool
    """Whether a call may force a side or set its own threshold; False for apps whose clients can write its config."""

    sticky: bool | str | Callable[[Any], str | int | None] | Stickiness | None
    """Keep a conversation on the strong model once it went there: True (by ``thread_id``), the name of another key
    that identifies a conversation, a function of the messages that returns an id, or a `Stickiness`."""


class RoutingOptions(DecisionOptions, total=False):
    """Options of everything that decides and then runs one of two models: `DecisionOptions`, and what may follow."""

    failover: bool
    """Whether the other model answers when the chosen one fails before its first token with an error that another
    model could survive: a time-out, a rate limit, a server error, a reply that cannot be read or has no content, and on
    the weak model a prompt that is too long for it; not a refused key or request."""

    cooldown: float | Cooldown | None
    """With `failover`, how many seconds a model is skipped after such a failure; then one call at a time tries it
    again. The default is 5; None or 0 skips nothing. Forced calls go to their side anyway."""

    accept: Accept | None
    """A check of the weak model's answers (a cascade): a function of the `WeakAnswer` and, if it takes two arguments,
    of the messages, sync or async, that returns True, False, or a score for `accept_threshold`. A refused answer is
    thrown away, and the strong model answers, once. A check that fails or hangs accepts nothing. Ready-made checks are
    in `routellm_core.policy.answer_checks`. Forced calls, and those that a limit sent to the weak model, are not
    checked."""

    accept_threshold: float
    """A score of at least this is accepted."""

    accept_band: tuple[float, float] | None
    """Win rates (low, high) within which weak answers are checked; None checks all."""

    accept_after: int | None
    """Characters of a stream after which its beginning is judged; None holds an answer back until it is complete."""

    accept_deadline: float
    """Seconds that a check may take."""

    log: CallLog | None
    """A `TrafficLog`, to which every call is written; no call waits for it or fails because of it."""

    shadow: float | Shadow
    """Share of the calls that the other model answers, too, in the background, for pairs to learn from; or a `Shadow`
    with its limits. Needs `log`. Nobody gets these answers, and no callback, usage or history knows of them."""

    prices: Mapping[str, Price | tuple[float, float]] | None
    """`Price` by model name, or by ``"strong"`` and ``"weak"``; with them, the decision on an answer says in its `cost`
    what the call has cost. None takes those of `log`."""

    weak_profile: Mapping[str, Any] | None
    """What the weak model can do, where its own profile or metadata is silent or wrong: keys of LangChain's model
    profiles, such as ``{"image_inputs": True, "max_input_tokens": 8000}``."""
