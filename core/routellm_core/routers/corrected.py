"""CorrectedRouter: another router's win rate, with a correction learned from scored pairs of the user's traffic."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from routellm_core.checks import checked_win_rates, is_number, read_only, read_tensors, shown
from routellm_core.embedders import embedder_config, embedder_identity
from routellm_core.embedders.base import Embedder, checked_embeddings, require_dimension
from routellm_core.errors import CheckpointError, ConfigurationError
from routellm_core.routers.base import WEIGHTS_FILE, Router, WeightsError, WinRateArray
from routellm_core.routers.embedding import saved_embedder

_BASE = "base"
# Win rates of exactly 0 and 1 have no logit.
_CLIP = 1e-4


def logits(win_rates: npt.ArrayLike) -> WinRateArray:
    """Logits (n,) of win rates, which are kept within 0.0001 of 0 and 1."""
    p = np.clip(np.asarray(win_rates, dtype=np.float64), _CLIP, 1.0 - _CLIP)
    return np.asarray(np.log(p / (1.0 - p)))


class CorrectedRouter(Router):
    """``win rate = sigmoid(slope * logit(base win rate) + intercept + delta . e_q)``, e_q the prompt's embedding.

    `routellm_core.training.learn` makes one where the router in use is not an mf on the same embedder, such as a
    function of your own. On disk it is a directory with the base router below it; where the base has no saved form,
    loading takes it as ``base=``.

    Args:
        base: The router that is corrected.
        slope: Factor on its logit, >= 0.
        intercept: Added to every logit.
        delta: Factors on the embedding, float (d,).
        embedder: Maps prompts to vectors of length d.

    Raises:
        ConfigurationError: `base` is not a router, a number is not finite, or the embedder has another dimension.
    """

    name = "corrected"

    def __init__(
        self, base: Router, *, slope: float, intercept: float, delta: npt.ArrayLike, embedder: Embedder
    ) -> None:
        if not isinstance(base, Router):
            raise ConfigurationError(f"base={base!r:.80}: expected a Router")
        vector = np.asarray(delta, dtype=np.float64)
        if vector.ndim != 1 or not np.isfinite(vector).all():
            raise WeightsError(f"delta of shape {vector.shape}: expected finite numbers (d,)")
        for label, value in (("slope", slope), ("intercept", intercept)):
            if not is_number(value) or (label == "slope" and value < 0):
                raise WeightsError(f"{label}={shown(value)}: expected a finite number" + " >= 0" * (label == "slope"))
        require_dimension(embedder, len(vector), "the corrected router")
        self.base, self.embedder = base, embedder
        self.slope, self.intercept = float(slope), float(intercept)
        self.delta = read_only(vector)

    @property
    def loads_alone(self) -> bool:
        """Whether its base has a saved form, so that loading it takes no ``base=``."""
        return type(self.base)._save is not Router._save

    def _win_rates(self, prompts: list[str]) -> WinRateArray:
        return self._combined(self.base.win_rates(prompts), self.embedder.embed(prompts))

    async def _awin_rates(self, prompts: list[str]) -> WinRateArray:
        rates, matrix = await asyncio.gather(self.base.awin_rates(prompts), self.embedder.aembed(prompts))
        return self._combined(rates, matrix)

    def _combined(self, rates: Any, matrix: Any) -> WinRateArray:
        count = len(rates)
        x = checked_embeddings(matrix, count, len(self.delta), type(self.embedder).__name__).astype(np.float64)
        # a stack of one-row products: BLAS rounds a row differently in another batch
        shift = np.matmul(x[:, None, :], self.delta[:, None])[:, 0, 0]
        z = self.slope * logits(checked_win_rates(rates, count, self.base.name)) + self.intercept + shift
        return np.asarray(0.5 * (1.0 + np.tanh(0.5 * z)))

    def _fingerprint_parts(self) -> dict[str, Any]:
        return {
            "router": self.name,
            "base": self.base.fingerprint,
            "slope": self.slope,
            "intercept": self.intercept,
            "delta": self.delta,
            "embedder": embedder_identity(self.embedder),
        }

    def _save(self, path: Path) -> dict[str, Any]:
        from safetensors.numpy import save_file

        save_file({"delta": np.ascontiguousarray(self.delta)}, path / WEIGHTS_FILE)
        if self.loads_alone:
            self.base.save_pretrained(path / _BASE)
        return {
            "slope": self.slope,
            "intercept": self.intercept,
            "base": self.base.name,
            "base_saved": self.loads_alone,
            "base_fingerprint": self.base.fingerprint,
            "embedder": embedder_config(self.embedder),
        }

    @classmethod
    def _load(  # type: ignore[override]  # each router has options of its own; from_pretrained checks them
        cls,
        path: Path,
        config: dict[str, Any],
        *,
        base: Router | None = None,
        embedder: Embedder | None = None,
    ) -> CorrectedRouter:
        if base is None:
            if config.get("base_saved") is not True:
                raise ConfigurationError(
                    f"{path} corrects the router {shown(config.get('base'))}, which has no saved form: pass that "
                    "router as base=, load_router(directory, base=router)"
                )
            base = Router.from_pretrained(path / _BASE)
        if config.get("base_fingerprint") != base.fingerprint:
            raise CheckpointError(
                f"{path} corrects another version of the router {base.name!r}: its win rates have changed since, so "
                "the correction does not fit; learn anew"
            )
        tensors = read_tensors(path / WEIGHTS_FILE, ["delta"])
        try:
            return cls(
                base,
                slope=config.get("slope"),  # type: ignore[arg-type]  # checked by the constructor
                intercept=config.get("intercept"),  # type: ignore[arg-type]
                delta=tensors["delta"],
                embedder=saved_embedder(config, embedder),
            )
        except WeightsError as exc:
            raise CheckpointError(f"{path} is damaged: {exc}") from exc
