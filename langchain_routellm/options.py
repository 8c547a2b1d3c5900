"""The options of `ChatRouteLLM` and `RouteLLMRunnable` as pydantic fields, and what is made of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Self

from langchain_core.rate_limiters import BaseRateLimiter
from pydantic import BaseModel, ConfigDict, Field, create_model

from langchain_routellm.dispatch import Dispatch
from langchain_routellm.sides import routed_in
from routellm_core import RoutingPolicy
from routellm_core.checks import Side, check_options
from routellm_core.policy.options import RoutingOptions
from routellm_core.policy.routing import OPTION_DEFAULTS, Routing
from routellm_core.policy.savings import checked_prices
from routellm_core.policy.tiers import tier

logger = logging.getLogger("langchain_routellm")

# The field that holds the `policy=` argument; the attribute `policy` is the policy in force.
_GIVEN_POLICY = "given_policy"
# The field that a rebuilt model takes over from the one it was rebuilt from.
_KNOWN_ROUTINGS = "known_routings"
# Arguments that LangChain's documentation promises of every chat model; here they belong on the two models.
_OF_A_PROVIDER = frozenset(
    {
        "api_key",
        "base_url",
        "max_retries",
        "max_tokens",
        "model",
        "stop",
        "streaming",
        "temperature",
        "timeout",
        "top_p",
    }
)


class RunnableOptions(RoutingOptions, total=False):
    """`RoutingOptions`, and the fields that every LangChain runnable has."""

    name: str | None


class ChatModelOptions(RunnableOptions, total=False):
    """`RoutingOptions`, and fields of every chat model that hold for whichever side answers."""

    callbacks: Any
    tags: list[str] | None
    metadata: dict[str, Any] | None
    verbose: bool
    custom_get_token_ids: Callable[[str], list[int]] | None
    rate_limiter: BaseRateLimiter | None
    disable_streaming: bool | Literal["tool_calling"]
    output_version: str | None
    profile: Any


def _field(option: str) -> str:
    return _GIVEN_POLICY if option == "policy" else option


class KnownRoutings:
    """The routings that a model and its copies have made, so that equal options mean one policy.

    LangChain's ``configurable_fields`` rebuilds its model on every call, with every field. Without this each call
    would have a new policy: a router loaded again, an empty cache, an online calibration at its start.
    """

    _MOST = 16

    def __init__(self) -> None:
        self._known: list[tuple[Mapping[str, Any], Routing]] = []

    def of(self, options: Mapping[str, Any], make: Callable[[], Routing]) -> Routing:
        """The routing that these options have made before, or the one that `make` returns."""
        for known, routing in self._known:
            if all(_is_same(known[name], value) for name, value in options.items()):
                return routing
        routing = make()
        # a rebuilt model brings the Stickiness and the Cooldown that were made of its options, not the options
        made = {**options, "sticky": routing.sticky, "cooldown": routing.cooldown}
        self._known = [(made, routing), *self._known[: self._MOST - 1]]
        return routing

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> Any:  # another process makes its own
        return type(self), ()


def _is_same(a: Any, b: Any) -> bool:
    return a is b or (type(a) is type(b) and isinstance(a, str | int | float | tuple | dict) and a == b)


if TYPE_CHECKING:
    _OptionFields = BaseModel
else:
    # not validated by pydantic: it would turn the text "0.5" into a number, and wrap the errors of the policy
    _OptionFields = create_model(
        "_OptionFields",
        __config__=ConfigDict(arbitrary_types_allowed=True),
        **{_field(name): (Any, default) for name, default in OPTION_DEFAULTS.items()},
    )


class RoutedFields(_OptionFields):
    """The fields of a routed runnable beyond its two sides: every option of `RoutingOptions`.

    Attributes:
        policy: The policy in force: the one that was passed, or the one built from the other options.
        known_routings: What the copies of a model share; not an option.
    """

    known_routings: KnownRoutings = Field(default_factory=KnownRoutings, exclude=True, repr=False)

    @property
    def policy(self) -> RoutingPolicy:
        """The policy in force: the one that was passed, or the one built from the other options."""
        return self._routing.policy

    @cached_property
    def _routing(self) -> Routing:
        options = self._options()
        return self.known_routings.of(options, lambda: self._made_routing(options))

    @classmethod
    def _made_routing(cls, options: Mapping[str, Any]) -> Routing:
        return Routing.of(options, owner=cls.__name__, key_allowed=cls._takes_keys())

    @cached_property
    def _dispatch(self) -> Dispatch:
        return self._new_dispatch()

    def _options(self) -> dict[str, Any]:
        return {name: getattr(self, _field(name)) for name in OPTION_DEFAULTS}

    def _serialized_options(self) -> dict[str, Any]:
        """Options that are objects serialize as they can be set: a stickiness as its settings, a price as a pair."""
        sticky, cooldown = self._routing.sticky, self._routing.cooldown
        prices = checked_prices(getattr(self, "prices", None)) or {}
        return {
            **({} if sticky is None else {"sticky": sticky.to_dict()}),
            **({} if cooldown is None else {"cooldown": cooldown.seconds}),
            **({} if not prices else {"prices": {n: [p.input, p.output] for n, p in prices.items()}}),
        }

    @classmethod
    def _takes_keys(cls) -> bool:
        """Whether ``route_on=`` may be the key of a dict input."""
        return False

    def _new_dispatch(self) -> Dispatch:
        raise NotImplementedError

    def _check_levels(self) -> None:
        """Where a side is a routed model, too, refuse shares that cannot hold together: now, not with the first call.

        Raises:
            ConfigurationError: They cannot.
        """
        sides: dict[Side, Any] = {"strong": self.strong, "weak": self.weak}  # type: ignore[attr-defined]
        for side, runnable in sides.items():
            routed = routed_in(runnable)
            if routed is not None:
                routed._as_level(self._routing, side)

    def _as_level(self, above: Routing, side: Side) -> Self:
        """A copy of this model that is a side of another one: see `policy.tiers`.

        Raises:
            ConfigurationError: The shares of both, or of levels below, cannot hold together.
        """
        level = self.model_copy()
        level.__dict__["_routing"] = tier(above, side, self._routing)
        level._check_levels()
        return level

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """As for any model; a copy with other routing options routes by them."""
        update = {_field(name): value for name, value in (update or {}).items()}
        copied = super().model_copy(update=update, deep=deep)
        copied._forget(update)
        return copied

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        memo = {} if memo is None else memo
        # shared, as a policy is: a router may be gigabytes, and what an option holds is safe to share
        memo.update({id(option): option for option in self._options().values()})
        memo[id(self.__dict__.get("_dispatch"))] = None
        copied = super().__deepcopy__(memo)
        copied._forget(())
        return copied

    def __getstate__(self) -> dict[Any, Any]:
        state = super().__getstate__()
        return {**state, "__dict__": {k: v for k, v in state["__dict__"].items() if k != "_dispatch"}}

    def __setattr__(self, name: str, value: Any) -> None:
        name = _field(name)
        super().__setattr__(name, value)
        self._forget((name,))

    def _forget(self, changed: Iterable[str]) -> None:
        """Drop what was made from fields that have changed since; it is made anew when needed."""
        self.__dict__.pop("_dispatch", None)
        if not {_field(name) for name in OPTION_DEFAULTS}.isdisjoint(changed):
            self.__dict__.pop("_routing", None)


def option_fields(
    cls: type[RoutedFields], given: Mapping[str, Any], *, is_chat_model: bool = False
) -> tuple[dict[str, Any], Routing]:
    """The fields to construct `cls` with, from all keyword arguments beyond its two sides; and the checked options.

    Args:
        cls: The class that is constructed.
        given: Keyword arguments: options, and fields of any runnable.
        is_chat_model: Whether arguments that every chat model takes (``temperature=``) are let through. They have no
            effect, since each of the two models has its own; a warning says so.

    Raises:
        ConfigurationError: An argument does not exist, or an option is not allowed.
    """
    passed = {("policy" if name == _GIVEN_POLICY else name): value for name, value in given.items()}
    known = passed.pop(_KNOWN_ROUTINGS, None) or KnownRoutings()
    options = {name: passed.pop(name) for name in OPTION_DEFAULTS if name in passed}
    if is_chat_model:
        idle = sorted(_OF_A_PROVIDER & passed.keys())
        passed = {name: value for name, value in passed.items() if name not in idle}
        if idle:
            logger.warning(
                "%s without effect on %s: arguments of a provider belong on the strong and the weak model",
                ", ".join(f"{name}=" for name in idle),
                cls.__name__,
            )
    fields = set(cls.model_fields) - {_GIVEN_POLICY, _KNOWN_ROUTINGS}
    check_options(passed, known=[*OPTION_DEFAULTS, *sorted(fields - OPTION_DEFAULTS.keys())], owner=cls.__name__)
    routing = known.of({**OPTION_DEFAULTS, **options}, lambda: cls._made_routing(options))
    # the conversations that a Stickiness holds are shared by every copy of the model
    options["sticky"] = routing.sticky
    # and so are the failures that a Cooldown knows of
    options["cooldown"] = routing.cooldown
    fields_of_options = {_field(name): value for name, value in options.items()}
    return {**passed, **fields_of_options, _KNOWN_ROUTINGS: known}, routing
