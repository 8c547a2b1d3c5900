"""Fingerprints of training prompts: small, not readable, and the same for what is the same prompt."""

from __future__ import annotations

from pathlib import Path

import pytest

from routellm_core import CheckpointError, load_router
from routellm_core.data.seen_prompts import SeenPrompts

PROMPTS = [f"What is {i} times {i}?" for i in range(1000)]


def test_prompts_are_known_but_for_case_punctuation_and_spacing() -> None:
    seen = SeenPrompts.of(PROMPTS * 2)
    assert len(seen) == 1000
    assert seen.marks(PROMPTS).all()
    assert seen.marks(["  what IS 7 times 7", "What is 7, times 7!"]).all()
    assert not seen.marks(["What is 7 times 8?", "", "\ud800"]).any()
    assert not SeenPrompts().marks(PROMPTS).any()
    assert len(SeenPrompts()) == 0


def test_the_file_takes_eight_bytes_a_prompt_and_holds_no_text(tmp_path: Path) -> None:
    seen = SeenPrompts.of(PROMPTS)
    seen.save(tmp_path / "s.safetensors")
    content = (tmp_path / "s.safetensors").read_bytes()
    assert len(content) < 8 * 1000 + 200
    assert b"times" not in content
    assert SeenPrompts.load(tmp_path / "s.safetensors").marks(PROMPTS).all()


def test_a_router_takes_them_along(tmp_path: Path) -> None:
    router = load_router("mf")
    router.trained_on = SeenPrompts.of(PROMPTS)
    router.save_pretrained(tmp_path / "r")
    assert load_router(tmp_path / "r").trained_on.marks(PROMPTS).all()  # type: ignore[union-attr]
    (tmp_path / "r" / "trained_on.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=r"trained_on\.safetensors"):
        load_router(tmp_path / "r")
