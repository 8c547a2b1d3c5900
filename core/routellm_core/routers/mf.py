"""MatrixFactorizationRouter: the paper's recommended router, folded into one vector; numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from routellm_core.checks import checked_count, checked_names, read_only, read_tensors, shown
from routellm_core.data.published import PUBLISHED_EMBEDDING_MODEL
from routellm_core.embedders import embedder_config, load_embedder
from routellm_core.embedders.base import Embedder, FloatMatrix, require_dimension
from routellm_core.errors import CheckpointError, ConfigurationError
from routellm_core.routers.base import WEIGHTS_FILE, WeightsError, WinRateArray
from routellm_core.routers.embedding import EmbeddingRouter, saved_embedder

# Row i of the published checkpoint's P.weight belongs to the model at position i of this ASCII-sorted list.
ARENA_MODELS = tuple(
    """
RWKV-4-Raven-14B alpaca-13b chatglm-6b chatglm2-6b chatglm3-6b claude-1 claude-2.0 claude-2.1 claude-instant-1
codellama-34b-instruct deepseek-llm-67b-chat dolly-v2-12b dolphin-2.2.1-mistral-7b falcon-180b-chat
fastchat-t5-3b gemini-pro gemini-pro-dev-api gpt-3.5-turbo-0125 gpt-3.5-turbo-0314 gpt-3.5-turbo-0613
gpt-3.5-turbo-1106 gpt-4-0125-preview gpt-4-0314 gpt-4-0613 gpt-4-1106-preview gpt4all-13b-snoozy guanaco-33b
koala-13b llama-13b llama-2-13b-chat llama-2-70b-chat llama-2-7b-chat llama2-70b-steerlm-chat
mistral-7b-instruct mistral-7b-instruct-v0.2 mistral-medium mixtral-8x7b-instruct-v0.1 mpt-30b-chat
mpt-7b-chat nous-hermes-2-mixtral-8x7b-dpo oasst-pythia-12b openchat-3.5 openchat-3.5-0106
openhermes-2.5-mistral-7b palm-2 pplx-70b-online pplx-7b-online qwen-14b-chat qwen1.5-4b-chat qwen1.5-72b-chat
qwen1.5-7b-chat solar-10.7b-instruct-v1.0 stablelm-tuned-alpha-7b starling-lm-7b-alpha stripedhyena-nous-7b
tulu-2-dpo-70b vicuna-13b vicuna-33b vicuna-7b wizardlm-13b wizardlm-70b yi-34b-chat zephyr-7b-alpha
zephyr-7b-beta
""".split()  # noqa: SIM905 - a list of 64 quoted names is no easier to check against the published one
)
# the authors' names of the tensors, so that their checkpoints and ours have the same form
_MODELS, _PROJECTION, _OUTPUT = "P.weight", "text_proj.0.weight", "classifier.0.weight"


class MatrixFactorizationRouter(EmbeddingRouter):
    """Matrix factorization over (model, prompt): ``win rate = sigmoid(delta(strong, q) - delta(weak, q))``.

    ``delta(M, q) = w2 . (P_M / ||P_M|| * (W1 e_q))`` with e_q the prompt's embedding (RouteLLM, section 4.2). For a
    pair of models this reduces to one vector, ``v = W1^T (w2 * (P_s / ||P_s|| - P_w / ||P_w||))``, computed once; a win
    rate is then ``sigmoid(v . e_q)``. Any two models of the checkpoint can be the pair (a model paired with itself
    gives 0.5 everywhere). A long prompt can be read in windows; see `EmbeddingRouter`.

    Args:
        model_vectors: P, float (n_models, dim), one row per model.
        projection: W1, float (dim, d) with d the embedding's dimension; None for embeddings of dimension dim.
        output: w2, float (dim,) or (1, dim).
        models: The n_models names, in the order of the rows.
        strong: Name of the strong model.
        weak: Name of the weak model.
        embedder: Maps prompts to vectors of dimension d; the same one that the factorization was trained with.
        windows: Maximum number of wide windows, at least 2, that are read of a prompt of more than 1,200 characters in
            addition to the whole, and with their sentences. Each is one more text to embed. 0 reads none.

    Raises:
        ConfigurationError: Shapes do not fit together, a value is NaN or infinite, a name is unknown or repeated, or
            the dimension of the embedder is different.
    """

    name = "mf"

    def __init__(
        self,
        model_vectors: npt.ArrayLike,
        projection: npt.ArrayLike | None,
        output: npt.ArrayLike,
        *,
        models: Sequence[str],
        strong: str,
        weak: str,
        embedder: Embedder,
        windows: int = 0,
    ) -> None:
        p = np.asarray(model_vectors)
        w1 = None if projection is None else np.asarray(projection)
        w2 = np.asarray(output)
        w2 = w2[0] if w2.ndim == 2 and w2.shape[0] == 1 else w2
        if p.ndim != 2 or w2.shape != (p.shape[1],) or (w1 is not None and (w1.ndim != 2 or len(w1) != p.shape[1])):
            raise WeightsError(
                f"model_vectors {p.shape}, projection {None if w1 is None else w1.shape}, output {w2.shape}: expected "
                "(n_models, dim), (dim, d) or None, (dim,)"
            )
        for label, tensor in (("model_vectors", p), ("projection", w1), ("output", w2)):
            if tensor is not None and not np.isfinite(tensor).all():
                raise WeightsError(f"{label} holds NaN or infinite values")
        self.models = checked_names(models, "models")
        if len(self.models) != len(p):
            raise ConfigurationError(
                f"models: {len(self.models)} names for {len(p)} rows of model_vectors; expected one for each row"
            )
        self.model_vectors, self.output = read_only(p), read_only(w2)
        self.projection = None if w1 is None else read_only(w1)
        self.strong, self.weak = self._known(strong, "strong"), self._known(weak, "weak")
        self.dimension = int(p.shape[1] if w1 is None else w1.shape[1])
        require_dimension(embedder, self.dimension, "the mf router")
        self.embedder = embedder
        self.windows = checked_count(windows, "windows", least=2) if windows != 0 else 0
        with np.errstate(all="ignore"):
            direction = w2.astype(np.float64) * (self._unit(strong) - self._unit(weak))
            vector = direction if w1 is None else direction @ w1.astype(np.float64)
        if not np.isfinite(vector).all():
            raise WeightsError("the weights are too large: their product is not finite")
        self._vector = read_only(vector)

    def _known(self, model: str, parameter: str) -> str:
        if model not in self.models:
            some = ", ".join(self.models[:8]) + (", ..." if len(self.models) > 8 else "")
            raise ConfigurationError(f"{parameter}={shown(model)} is not a model of this checkpoint; it has: {some}")
        return model

    def _unit(self, model: str) -> npt.NDArray[np.float64]:
        row = self.model_vectors[self.models.index(model)].astype(np.float64)
        # the same floor as in the authors' normalisation: a zero row stays zero instead of becoming NaN
        norm = max(float(np.linalg.norm(row)), 1e-12)
        return np.asarray(row / norm) if np.isfinite(norm) else np.full_like(row, np.nan)

    @property
    def vector(self) -> npt.NDArray[np.float64]:
        """The vector v (d,) of the pair: the logit of the win rate is ``v . e_q``."""
        return self._vector.copy()

    def _of_embeddings(self, matrix: FloatMatrix) -> WinRateArray:
        # a stack of one-row products, not one matrix product: BLAS rounds a row differently in another batch
        rows = matrix.astype(np.float64)[:, None, :]
        logits = np.matmul(rows, self._vector[:, None])[:, 0, 0]
        # exp would overflow below -700, where the win rate is 0 to all digits
        return np.asarray(1.0 / (1.0 + np.exp(-np.maximum(logits, -700.0))), dtype=np.float64)

    def _fingerprint_parts(self) -> dict[str, Any]:
        return {"router": self.name, "vector": self._vector, **self._reading_parts()}

    def _save(self, path: Path) -> dict[str, Any]:
        from safetensors.numpy import save_file

        tensors = {_MODELS: self.model_vectors, _OUTPUT: self.output[None, :]}
        if self.projection is not None:
            tensors[_PROJECTION] = self.projection
        save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, path / WEIGHTS_FILE)
        return {
            "dim": int(self.model_vectors.shape[1]),
            "num_models": len(self.models),
            "text_dim": self.dimension,
            "use_proj": self.projection is not None,
            "num_classes": 1,
            "models": list(self.models),
            "strong": self.strong,
            "weak": self.weak,
            "embedder": embedder_config(self.embedder),
            **({"windows": self.windows} if self.windows else {}),
        }

    @classmethod
    def _load(  # type: ignore[override]  # each router has options of its own; from_pretrained checks them
        cls,
        path: Path,
        config: dict[str, Any],
        *,
        embedder: Embedder | None = None,
        strong: str | None = None,
        weak: str | None = None,
        windows: int | None = None,
    ) -> MatrixFactorizationRouter:
        use_projection = config.get("use_proj", True)
        if not isinstance(use_projection, bool):
            raise ConfigurationError(f"use_proj={shown(use_projection)}: expected true or false")
        names = [_MODELS, _OUTPUT, *([_PROJECTION] if use_projection else [])]
        tensors = read_tensors(path / WEIGHTS_FILE, names)
        published = "models" not in config
        models = ARENA_MODELS if published else config["models"]
        if published and tensors[_MODELS].ndim == 2 and len(tensors[_MODELS]) != len(ARENA_MODELS):
            raise CheckpointError(
                f"{path} has {len(tensors[_MODELS])} model vectors but no list of names: expected the "
                f"{len(ARENA_MODELS)} models of the published form, or 'models' in config.json"
            )
        if embedder is None and published:
            # the authors' checkpoints do not name their embedder, and all were trained with this one
            embedder = load_embedder(
                {"type": "openai", "model": PUBLISHED_EMBEDDING_MODEL, "dimensions": config.get("text_dim")}
            )
        elif embedder is None:
            embedder = saved_embedder(config)
        if windows is None:
            windows = config.get("windows", 0)
            if type(windows) is not int or windows < 0 or windows == 1:
                raise CheckpointError(f"{path}: config.json says windows={shown(windows)}; expected 0, or at least 2")
        try:
            return cls(
                tensors[_MODELS],
                tensors.get(_PROJECTION),
                tensors[_OUTPUT],
                models=models,
                strong=config.get("strong", "gpt-4-1106-preview") if strong is None else strong,
                weak=config.get("weak", "mixtral-8x7b-instruct-v0.1") if weak is None else weak,
                embedder=embedder,
                windows=windows,
            )
        except WeightsError as exc:
            raise CheckpointError(f"{path / WEIGHTS_FILE} is damaged: {exc}") from exc
