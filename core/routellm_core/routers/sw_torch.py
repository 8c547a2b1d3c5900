"""The cosines of a similarity-weighted router by torch's compiled half-precision product: faster, with a copy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from routellm_core.embedders.base import FloatMatrix
from routellm_core.errors import ConfigurationError, MissingExtraError
from routellm_core.forks import torch_computes
from routellm_core.routers.sw_storage import BattleStore

# Rows per packed block: larger ones are no faster, and while one is packed, its rows exist as float32 too.
_HEIGHT = 4096


class TorchProduct:
    """Compares prompts with stored battles as `BattleStore.similarities` does, in torch.

    The rows are packed in IEEE half precision for a product that reads them in place and sums in float32. Each cosine
    depends on its prompt and its row alone, bit for bit, whatever the size of the batch and the number of threads. In
    a forked child, torch computes in one thread.

    Args:
        store: The battles. Their directions are copied: 2 bytes a component, which processes do not share.

    Raises:
        MissingExtraError: torch is not installed.
        ConfigurationError: This build of torch has no such product for this machine.
    """

    def __init__(self, store: BattleStore) -> None:
        try:
            import torch
        except ImportError:
            raise MissingExtraError("backend='torch'", "bert") from None
        self.store = store
        torch_computes()
        ops: Any = torch.ops.quantized
        try:
            self._packed = [
                ops.linear_prepack_fp16(torch.from_numpy(store.directions(start, start + _HEIGHT)), None)
                for start in range(0, len(store), _HEIGHT)
            ]
        except (AttributeError, RuntimeError) as exc:
            raise ConfigurationError(
                f"backend='torch': torch {torch.__version__} has no half-precision product for this processor "
                f"({str(exc).splitlines()[0]:.200}); leave backend at its default, 'numpy'"
            ) from exc

    def similarities(self, embeddings: FloatMatrix) -> npt.NDArray[np.float32]:
        """Return the cosines (b, n) of prompt vectors (b, d) with the stored rows; those of the zero vector are 0."""
        import torch

        queries = torch.from_numpy(self.store.unit_queries(embeddings))
        out = np.empty((len(embeddings), len(self.store)), dtype=np.float32)
        for i, packed in enumerate(self._packed):
            out[:, i * _HEIGHT : (i + 1) * _HEIGHT] = torch.ops.quantized.linear_dynamic_fp16(queries, packed).numpy()
        return out

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as the battles, which are packed again."""
        return TorchProduct, (self.store,)
