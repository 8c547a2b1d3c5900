"""How the two sides are set up: what to say when one cannot be reached, or when both turn out to be one model."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from routellm_core.checks import Side
from routellm_core.policy.failover import status_of

logger = logging.getLogger("routellm_core")

# After so many answers nobody looks for names any more.
_LOOKS = 1000
_USER_INFO = re.compile(r"//[^/?#\s]*@")


@dataclass(frozen=True, slots=True)
class Setup:
    """What a side's model was set up with.

    Attributes:
        name: The model's name, as the user wrote it; None where it is not known.
        url: Address of its server; None where it is the provider's own, or not known.
        rest: Whatever else may change its answers (settings, instructions); compared by ``==``.
    """

    name: str | None = None
    url: str | None = None
    rest: Any = None


Setups = Callable[[Side], Setup | None]


class ModelNames:
    """The names of models that the answers of the two sides state; warns once where both state the same one.

    A llama.cpp server answers to any name, so that two names at one address are one model, and routing between them
    only costs. One model under two settings or at two addresses may be wanted, and then both sides have its name.
    All copies of a routed model share this.
    """

    __slots__ = ("_left", "_names", "is_settled")

    def __init__(self) -> None:
        self._names: dict[Side, str] = {}
        self._left = _LOOKS
        self.is_settled = False

    def answered(self, side: Side, name: str | None, setups: Setups) -> None:
        """Note which model an answer names, until both sides have named one or too many answers name none.

        Args:
            side: Which side answered.
            name: The name that the answer states; None where it states none.
            setups: The setup of a side; None where other models may answer in its place.
        """
        if self.is_settled:
            return
        self._left -= 1
        self.is_settled = self._left <= 0
        if not name:
            return
        self._names[side] = name
        if len(self._names) < 2:
            return
        self.is_settled = True
        if self._names["strong"] != self._names["weak"]:
            return
        strong, weak = setups("strong"), setups("weak")
        if strong is None or weak is None or is_on_purpose(name, strong, weak):
            return
        logger.warning(
            "the answers of both sides name the same model, %s, but strong is set up as %s and weak as %s. Some "
            "servers (llama.cpp) answer to any name: check the address of each side. If both names mean one model "
            "with different settings, ignore this warning; it is not repeated.",
            name,
            _described(strong),
            _described(weak),
        )


def is_on_purpose(served: str, one: Setup, other: Setup) -> bool:
    """Whether two setups that a single model serves are meant to: both have its name, and they differ in the rest."""
    if one.name is None or one.name != other.name or not name_likeness(served, one.name):
        return False
    return one != other


def shown_address(url: str) -> str:
    """A URL without user, password and query, which may be secret."""
    return without_user_info(url.partition("?")[0])


def without_user_info(text: str) -> str:
    """A text without the user and password of each URL in it."""
    return _USER_INFO.sub("//", text)


def name_likeness(answered: str, name: str) -> int:
    """How much of a model's name stands in the name that an answer states: ``gpt-4.1-2025-04-14`` is ``gpt-4.1``."""
    answered, name = (text.rpartition("/")[2].casefold() for text in (answered, name))
    return min(len(answered), len(name)) if answered.startswith(name) or name.startswith(answered) else 0


class FailureNote(str):
    """A note on an error of a model: what to look at; its class tells it from other notes."""

    __slots__ = ()


def explain(exc: Exception, side: Side, setups: Setups) -> FailureNote | None:
    """Add to an error what to look at, where there is something to say; clients rarely name the model or its address.

    An error that a routed model inside of the side has explained keeps that explanation.

    Returns:
        The explanation that the error carries now; None where there is none.
    """
    known = next((note for note in getattr(exc, "__notes__", ()) if isinstance(note, FailureNote)), None)
    if known is not None:
        return known
    text = failure_note(exc, side, setups(side))
    if text is None:
        return None
    note = FailureNote(text)
    exc.add_note(note)
    return note


def failure_note(exc: BaseException, side: Side, setup: Setup | None) -> str | None:
    """What to look at after a model failed as servers do that are down, or that know no such model; else None.

    Told apart by the HTTP status and the class of the error, never by its message.
    """
    setup = setup or Setup()
    at = "" if setup.url is None else f" at {shown_address(setup.url)}"
    model = "" if setup.name is None else f" {setup.name!r}"
    status = status_of(exc)
    if status == 404:
        return (
            f"the server of the {side} model{at} has no model{model} (HTTP status 404), or the address is not the "
            "base of its API, which often ends in /v1"
        )
    if status in (401, 403):
        return f"the server of the {side} model{model}{at} refuses the key (HTTP status {status})"
    if status is not None:
        return None
    names = [cls.__name__ for cls in type(exc).__mro__]
    if any("Timeout" in name for name in names):
        return (
            f"the {side} model{model}{at} did not answer in time; a server that loads its model can take a minute: "
            "raise the client's timeout"
        )
    if any("Connection" in name or "ConnectError" in name for name in names):
        return f"the server of the {side} model{model}{at} cannot be reached: is it running, and is the address right?"
    return None


def _described(setup: Setup) -> str:
    return repr(setup.name) + ("" if setup.url is None else f" at {shown_address(setup.url)}")
