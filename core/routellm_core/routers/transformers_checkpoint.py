"""Shared by the routers over transformers models: loading checkpoints safely, and fingerprints of models."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import ModuleType
from typing import Any

from routellm_core.checks import read_json_object
from routellm_core.errors import CheckpointError, CheckpointNotFoundError, ConfigurationError, MissingExtraError

DTYPES = ("float32", "bfloat16", "float16")
_PICKLED = {".bin", ".pt", ".pth", ".pkl", ".ckpt"}
# Number of elements of a tensor in its digest: fine-tuning changes nearly all of them, so a sample is enough.
_SAMPLE = 1 << 16


def import_transformers(what: str) -> ModuleType:
    """Import the transformers module.

    Raises:
        MissingExtraError: transformers or torch is not installed.
    """
    try:
        import torch  # noqa: F401 - without torch, transformers can be imported and fails later with another message
        import transformers
    except ImportError:
        raise MissingExtraError(what, "bert") from None
    return transformers


def torch_dtype(dtype: str | None) -> Any:
    """Return the torch dtype with this name; None for None.

    Raises:
        ConfigurationError: The dtype is not supported.
    """
    import torch

    if dtype is None:
        return None
    if dtype not in DTYPES:
        raise ConfigurationError(f"dtype={dtype!r}: expected one of {', '.join(DTYPES)}")
    return getattr(torch, dtype)


def load_model(auto_class: Any, path: Path, dtype: str, device: str | None) -> Any:
    """Load a model from a directory: only from safetensors, without code from the checkpoint, with all weights.

    Raises:
        CheckpointNotFoundError: There are no safetensors weights; the message names pickled ones, which are rejected.
        CheckpointError: The checkpoint is corrupt or incomplete, or requires code of its own.
        ConfigurationError: `dtype` or `device` is not allowed.
    """
    if not any(path.glob("*.safetensors")):
        pickled = sorted(file.name for file in path.iterdir() if file.suffix in _PICKLED)
        hint = (
            f" {', '.join(pickled)} exists, but pickled weights can run code when opened and are rejected; convert "
            "a copy that you trust to safetensors"
            if pickled
            else ""
        )
        raise CheckpointNotFoundError(f"no safetensors weights in {str(path)!r}.{hint}")
    try:
        model, report = auto_class.from_pretrained(
            str(path), dtype=torch_dtype(dtype), use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    except ConfigurationError:
        raise
    except Exception as exc:  # transformers may raise anything
        raise CheckpointError(f"{path} cannot be loaded: {type(exc).__name__}: {exc}") from exc
    lacking = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    if lacking:
        # transformers would initialise them randomly and continue
        raise CheckpointError(f"{path} lacks weights, or has them in another shape: {', '.join(lacking[:5])}")
    return placed(model, device)


def placed(model: Any, device: str | None) -> Any:
    """Move the model to `device` and prepare it for inference."""
    if device is not None:
        try:
            model = model.to(device)
        except (RuntimeError, AssertionError) as exc:
            raise ConfigurationError(f"device={device!r}: {exc}") from exc
    return model.eval().requires_grad_(False)


def load_tokenizer(transformers: ModuleType, path: Path) -> Any:
    """Load a fast tokenizer from a directory.

    Raises:
        CheckpointError: There is no tokenizer, or it is not a fast one.
    """
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(path), local_files_only=True)
    except Exception as exc:  # transformers may raise anything
        raise CheckpointError(f"the tokenizer of {path} cannot be loaded: {type(exc).__name__}: {exc}") from exc
    if not getattr(tokenizer, "is_fast", False):
        raise CheckpointError(f"{path} has no tokenizer.json: save the tokenizer in its fast form")
    return tokenizer


def saved_config(path: Path) -> dict[str, Any]:
    """Return the config.json that a model has just written."""
    return read_json_object(path / "config.json", "the model did not write it")


def model_digest(model: Any, tokenizer: Any) -> str:
    """Return a hex digest of a model and its tokenizer: all names and shapes, up to 65,536 elements per tensor."""
    digest = hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        flat = tensor.reshape(-1)
        sample = flat[:: max(1, flat.numel() // _SAMPLE)].float().cpu().numpy()
        digest.update(sample.tobytes())
    return digest.hexdigest()[:32]
