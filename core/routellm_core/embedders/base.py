"""The protocol of embedders, and the checks that every result goes through."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt

from routellm_core.checks import no_key_inside
from routellm_core.errors import ConfigurationError, RouterError

FloatMatrix = npt.NDArray[np.float32]


@runtime_checkable
class Embedder(Protocol):
    """Anything that maps n texts to a float32 matrix (n, dimension), row i for text i.

    An embedder may also have ``config() -> dict`` (JSON scalars, no secrets), from which ``load_embedder`` rebuilds it;
    a router that is saved with such an embedder can be loaded without passing one.
    """

    @property
    def dimension(self) -> int | None:
        """Length of a vector; None if it is only known after the first call."""
        ...

    def embed(self, texts: Sequence[str]) -> FloatMatrix:
        """Embed n texts as a float32 matrix (n, dimension)."""
        ...

    async def aembed(self, texts: Sequence[str]) -> FloatMatrix:
        """Like `embed`, without blocking the event loop."""
        ...


def checked_embeddings(matrix: Any, count: int, dimension: int | None, source: str) -> FloatMatrix:
    """Return `matrix` as float32 (count, dimension), or raise.

    Args:
        matrix: What an embedder returned.
        count: Number of texts that were embedded.
        dimension: Expected vector length; None accepts any.
        source: Name of the embedder, for the message.

    Raises:
        RouterError: The number or the length of the vectors is wrong, or a value is NaN or infinite.
    """
    try:
        out = np.asarray(matrix, dtype=np.float32)
    except (TypeError, ValueError) as exc:
        raise RouterError(f"{source} returned a {type(matrix).__name__} that is not a matrix of numbers") from exc
    if out.ndim != 2 or out.shape[0] != count or (dimension is not None and out.shape[1] != dimension):
        wanted = f"({count}, {dimension if dimension is not None else 'd'})"
        raise RouterError(f"{source} returned embeddings of shape {out.shape} for {count} texts; expected {wanted}")
    flat = out.ravel()
    with np.errstate(all="ignore"):
        # a sum of squares is finite only if every value is, and is several times cheaper than checking each value
        suspicious = not np.isfinite(np.dot(flat, flat))
    if suspicious and not np.isfinite(out).all():
        raise RouterError(f"{source} returned embeddings with NaN or infinite values")
    return out


def require_dimension(embedder: Embedder, dimension: int, owner: str) -> None:
    """Raise an error if the embedder's vectors have the wrong length, as far as its dimension is known.

    Raises:
        ConfigurationError: The dimensions differ, or `embedder` lacks the protocol's methods.
    """
    if not callable(getattr(embedder, "embed", None)):
        raise ConfigurationError(
            f"embedder={embedder!r} has no embed(texts) method; pass an object with embed, aembed and dimension "
            "(see routellm_core.embedders)"
        )
    got = getattr(embedder, "dimension", None)
    if got is not None and got != dimension:
        raise ConfigurationError(
            f"embedder {type(embedder).__name__} has {got} dimensions, but {owner} was trained with {dimension}; "
            "pass the embedder that the router was trained with"
        )


class WrappedEmbedder(ABC):
    """Turns a framework's embedding model into an embedder; it is as safe to share between threads as that model.

    A batch is one call of the model. Errors of the model pass through. Subclasses implement the calls. A model with a
    key inside is not pickled: make the embedder in each process.

    Args:
        model: The framework's embedding model.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._dimension: int | None = None

    def __getstate__(self) -> dict[str, Any]:
        no_key_inside(self._model, owner=type(self._model).__name__)
        return vars(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # shares the model, as a user who passes it on does

    @abstractmethod
    def _embed(self, texts: list[str]) -> Any:
        """Return the model's vectors of n texts."""

    @abstractmethod
    async def _aembed(self, texts: list[str]) -> Any:
        """Like `_embed`, with the model's asynchronous method."""

    @property
    def dimension(self) -> int | None:
        """Length of a vector; None before the first call."""
        return self._dimension

    @property
    def model_name(self) -> str:
        """Name the class and, if known, the model of the wrapped object, so that caches of two models stay separate."""
        model = getattr(self._model, "model", None) or getattr(self._model, "model_name", None)
        name = type(self._model).__qualname__
        return f"{name}:{model}" if isinstance(model, str) else name

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model_name})"

    def embed(self, texts: Sequence[str]) -> FloatMatrix:
        """Embed n texts as a float32 matrix (n, dimension).

        Raises:
            RouterError: The model did not return one finite vector per text, or vectors of another length than before.
        """
        return self._checked(self._embed(list(texts)), len(texts))

    async def aembed(self, texts: Sequence[str]) -> FloatMatrix:
        """Like `embed`, without blocking the event loop."""
        return self._checked(await self._aembed(list(texts)), len(texts))

    def _checked(self, vectors: Any, count: int) -> FloatMatrix:
        matrix = checked_embeddings(vectors, count, self._dimension, repr(self))
        # Threads that get here at the same time write the same number.
        self._dimension = int(matrix.shape[1])
        return matrix
