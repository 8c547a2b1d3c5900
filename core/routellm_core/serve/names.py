"""Names of models that clients may ask for, and what each means for the call."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from routellm_core.checks import Side
from routellm_core.policy.policy import RoutingPolicy
from routellm_core.serve.replies import RequestError

logger = logging.getLogger("routellm_core")

ROUTED_NAME = "routellm"
_SHARE = re.compile(r"routellm-(\d{1,2}|100)pct")
_THRESHOLD = re.compile(r"router-(.+)-(0(?:\.\d+)?|1(?:\.0+)?|\.\d+)")
_LISTED_SHARES = range(10, 100, 10)
# The bundled router is an mf with a vote beside it, and `load_router("mf")` loads it: the authors' name means it, too.
_ALSO_CALLED = {"mf_vote": "mf"}


@dataclass(frozen=True, slots=True)
class Asked:
    """What a model's name asks for.

    Attributes:
        force: The side that answers.
        name: The model that answers, by the server's name for it.
        threshold: Threshold of this call.
        is_model: Whether it is a real model, which no other may stand in for.
        note: What the caller should know about it.
    """

    force: Side | None = None
    name: str | None = None
    threshold: float | None = None
    is_model: bool = False
    note: str | None = None

    @property
    def is_override(self) -> bool:
        """Whether it asks for anything but the policy's own decision."""
        return self.force is not None or self.name is not None or self.threshold is not None


class Names:
    """The names that a server knows: ``routellm``, ``routellm-30pct``, ``router-mf-0.3``, ``strong``, ``weak``, and
    those of the models.

    Args:
        policy: Its router's name stands in ``router-NAME-THRESHOLD``, the form of the authors' server, which calls the
            bundled router ``mf``; its calibration turns a share into a threshold.
        models: Name of each model by what the server calls it, the most expensive first.
        overrides: Whether a client may choose; else there is ``routellm`` alone.
    """

    def __init__(self, policy: RoutingPolicy, models: Mapping[str, str], *, overrides: bool) -> None:
        self._policy = policy
        # the later entry of one name wins: where both models have one name, it means the strong one
        self._sides = {
            **{models[name]: Asked(name=name, is_model=True) for name in reversed(list(models))},
            "weak": Asked(force="weak"),
            "strong": Asked(force="strong"),
        }
        self._overrides = overrides
        self._warned = threading.Event()

    def meaning(self, name: str) -> Asked:
        """What `name` asks for.

        Raises:
            RequestError: It is not known, or overrides are not allowed.
        """
        asked = self._known(name)
        if asked is None:
            raise RequestError(
                404,
                f"model {name!r:.80} is not served here; try one of: {', '.join(self.listed())}",
                "model_not_found",
                param="model",
            )
        if asked.is_override and not self._overrides:
            raise RequestError(
                403, f"only the model {ROUTED_NAME!r} is served here", "overrides_not_allowed", param="model"
            )
        return asked

    def listed(self) -> list[str]:
        """The names, for ``/v1/models``; of the thresholds and shares some."""
        names = [ROUTED_NAME]
        if self._overrides:
            if self._policy.calibration is not None:
                names += [f"routellm-{share}pct" for share in _LISTED_SHARES]
            names += [f"router-{name}-{self._policy.threshold:.5f}" for name in self._router_names()]
            names += self._sides
        return list(dict.fromkeys(names))

    def threshold_of(self, strong_fraction: float, parameter: str) -> float:
        """The threshold for a share of strong calls.

        Raises:
            RequestError: The router has no calibration.
        """
        calibration = self._policy.calibration
        if calibration is None:
            raise RequestError(
                400,
                f"a share of strong calls needs a calibration, and router {self._policy.router.name!r} has none",
                param=parameter,
            )
        return calibration.threshold(strong_fraction=strong_fraction)

    def _known(self, name: str) -> Asked | None:
        if name == ROUTED_NAME:
            return Asked()
        if name in self._sides:
            return self._sides[name]
        share = _SHARE.fullmatch(name)
        if share is not None and self._policy.calibration is not None:
            return Asked(threshold=self.threshold_of(int(share[1]) / 100, "model"))
        found = _THRESHOLD.fullmatch(name)
        if found is not None and found[1] in self._router_names():
            return Asked(threshold=float(found[2]), note=self._note(float(found[2])))
        return None

    def _router_names(self) -> list[str]:
        """What the router is called, the authors' name first."""
        name = self._policy.router.name
        return [_ALSO_CALLED[name], name] if name in _ALSO_CALLED else [name]

    def _note(self, threshold: float) -> str:
        calibration = self._policy.calibration
        share = (
            ""
            if calibration is None
            else f" here {threshold:g} sends about {calibration.strong_fraction(threshold=threshold):.0%} of prompts "
            "like the calibration's to the strong model;"
        )
        note = (
            f"a threshold means another share with every router;{share} ask for a share instead, such as routellm-30pct"
        )
        if not self._warned.is_set():
            self._warned.set()
            logger.warning("A client asked for a threshold by the model's name: %s.", note)
        return note


def model_object(name: str) -> dict[str, Any]:
    """A model in the form of OpenAI's list."""
    return {"id": name, "object": "model", "created": 0, "owned_by": "routellm"}
