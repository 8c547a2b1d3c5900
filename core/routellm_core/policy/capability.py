"""Capability guard: a call that the weak model cannot serve goes to the strong one, whatever its win rate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from routellm_core.checks import shown
from routellm_core.errors import ConfigurationError

# Keys of a model profile, as LangChain's ModelProfile names them; the LlamaIndex adapter maps its metadata to them.
IMAGE_INPUTS = "image_inputs"
AUDIO_INPUTS = "audio_inputs"
VIDEO_INPUTS = "video_inputs"
PDF_INPUTS = "pdf_inputs"
TOOL_CALLING = "tool_calling"
STRUCTURED_OUTPUT = "structured_output"
MAX_INPUT_TOKENS = "max_input_tokens"
IMAGE_URL_INPUTS = "image_url_inputs"
IMAGE_TOOL_MESSAGE = "image_tool_message"
PDF_TOOL_MESSAGE = "pdf_tool_message"

_FLAGS = (
    IMAGE_INPUTS,
    AUDIO_INPUTS,
    VIDEO_INPUTS,
    PDF_INPUTS,
    TOOL_CALLING,
    STRUCTURED_OUTPUT,
    IMAGE_URL_INPUTS,
    IMAGE_TOOL_MESSAGE,
    PDF_TOOL_MESSAGE,
)


def checked_profile(value: Any, parameter: str) -> dict[str, Any]:
    """Return what a user says of a model's abilities as a dict, empty for None.

    Raises:
        ConfigurationError: It is not a mapping, or a key or a value is not one of a profile.
    """
    if value is None:
        return {}
    sound = isinstance(value, Mapping) and all(
        isinstance(stated, bool) if key in _FLAGS else key == MAX_INPUT_TOKENS and _is_window(stated)
        for key, stated in value.items()
    )
    if not sound:
        raise ConfigurationError(
            f"{parameter}={shown(value)}: expected a mapping such as {{'image_inputs': True}}, with True or False for "
            f"{', '.join(_FLAGS)}, and a number of tokens for {MAX_INPUT_TOKENS}"
        )
    return dict(value)


def _is_window(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def capability_gap(
    needs: Iterable[str],
    weak: Mapping[str, Any] | None,
    strong: Mapping[str, Any] | None,
    input_tokens: Callable[[], int] | None = None,
) -> str | None:
    """Name what the weak model lacks for a call and the strong one does not; None when nothing is known to be lacking.

    Only what a profile states counts: an absent key or an absent profile means unknown, and the router decides.
    Where both models lack it, the router decides too, and the chosen model gives its own error.

    Args:
        needs: Profile keys that the call needs, such as ``"image_inputs"`` or ``"tool_calling"``.
        weak: Profile of the weak model.
        strong: Profile of the strong model.
        input_tokens: Counts the call's tokens; called only when the weak model states its ``max_input_tokens``.

    Returns:
        The profile key, or None.
    """
    if not weak:
        return None
    strong = strong or {}
    for need in needs:
        if weak.get(need) is False and strong.get(need) is not False:
            return need
    limit = weak.get(MAX_INPUT_TOKENS)
    if limit and input_tokens is not None:
        larger = strong.get(MAX_INPUT_TOKENS)
        if (larger is None or larger > limit) and input_tokens() > limit:
            return MAX_INPUT_TOKENS
    return None


def estimated_tokens(text: str) -> int:
    """Tokens of a text without a tokenizer: four ASCII characters a token, every other character one.

    Errs upwards for most languages, on purpose: too long a prompt is refused by the model.
    """
    # counted by the codec: a megabyte must not hold up an event loop
    ascii_only = len(text) if text.isascii() else len(text.encode("ascii", "ignore"))
    return -(-ascii_only // 4) + len(text) - ascii_only
