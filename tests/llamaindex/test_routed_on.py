"""Each part of the installed LlamaIndex that asks an LLM is routed on what the guide says."""

from __future__ import annotations

import re
from typing import Any

import pytest
from llama_index_instrumentation.dispatcher import instrument_tags

from tests.llamaindex import routed_on

CLASSES = {name: cls for members in routed_on.classes().values() for name, cls in members.items()}
NOT_MORE_THAN = {
    "the question",
    "what the LLM made of the question",
    "the answer",
    "LlamaIndex's own instruction",
    "the whole prompt, with the context",
}
# They do not hand the question to the model, or have no span that says it: the guide names them and says what to do.
WITHOUT_THE_QUESTION = {
    "FaithfulnessEvaluator",
    "MultiModalFaithfulnessEvaluator",
    "MultiModalRelevancyEvaluator",
    "PIINodePostprocessor",
}


def test_whatever_may_ask_an_llm_has_a_recipe() -> None:
    # a class that a later LlamaIndex adds has to be looked at before the guide can speak of it
    assert [n for n, cls in CLASSES.items() if n not in routed_on.RECIPES and routed_on.may_ask_an_llm(cls)] == []
    assert len(CLASSES) > 100


@pytest.mark.parametrize("name", sorted(set(routed_on.RECIPES) & set(CLASSES)))
def test_is_routed_on_what_the_guide_says(name: str) -> None:
    texts = routed_on.routed_on(CLASSES[name])
    assert set(texts) <= NOT_MORE_THAN
    assert not texts or "the question" in texts or name in WITHOUT_THE_QUESTION
    told = [line.split(" | ")[-1].removesuffix(" |") for line in guide() if f"| `{name}` |" in line]
    assert told == (["; ".join(texts)] if texts else [])


@pytest.mark.parametrize("name", sorted(WITHOUT_THE_QUESTION))
def test_where_the_question_is_not_passed_on_a_tag_says_it(name: str) -> None:
    text = routed_on.DOC.read_text(encoding="utf-8")
    (block,) = [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "tagged_question" in block]
    names: dict[str, Any] = {}
    exec(block.partition("\n\nllm = ")[0], names)
    assert "the question" not in routed_on.routed_on(CLASSES[name])
    with instrument_tags({"question": routed_on.QUESTION}):
        assert routed_on.routed_on(CLASSES[name], names["tagged_question"]) == ["the question"]
    assert f"`{name}`" in text.partition("**Where LlamaIndex passes no question on.**")[2].partition("\n\n")[0]


def guide() -> list[str]:
    text = routed_on.DOC.read_text(encoding="utf-8")
    return text.partition(routed_on.BEGIN)[2].partition(routed_on.END)[0].splitlines()


def test_the_guide_names_nothing_else() -> None:
    named = [line.split("`")[1] for line in guide() if "`" in line]
    assert len(named) == len(set(named)) > 50
    assert set(named) <= set(routed_on.RECIPES)
