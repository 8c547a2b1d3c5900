"""Chat models of services and frameworks: replies, errors and keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest

from routellm_core import ConfigurationError
from routellm_core.labelling import (
    CallError,
    LLMChatModel,
    OpenAIChatModel,
)
from routellm_core.labelling.chat_models import Reply
from tests.core.labelling.services import KEY


async def test_replies_of_frameworks_and_their_errors_are_read_alike(tmp_path: Path) -> None:
    class Message:
        content = ({"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": "[[A]]"}, "!")
        usage_metadata: ClassVar = {"input_tokens": 3, "output_tokens": 4}

    class Model:
        model_name = "mine"

        async def ainvoke(self, messages: Any) -> Any:
            if messages[-1][1] == "fail":
                raise RuntimeError(f"cannot answer {messages} with {KEY}")
            return Message()

    model = LLMChatModel(Model())
    assert model.name == "mine"
    assert await model.ask("s", "u") == Reply("[[A]]!", 3, 4)
    with pytest.raises(CallError) as caught:
        await model.ask(None, "fail")
    assert str(caught.value) == "mine: RuntimeError"
    with pytest.raises(ConfigurationError, match="ainvoke"):
        LLMChatModel(object())


def test_a_model_without_a_key_says_which_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
        OpenAIChatModel("gpt")
