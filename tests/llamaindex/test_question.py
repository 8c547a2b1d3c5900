"""What the person said, found among what agents and engines write."""

from __future__ import annotations

import pytest
from llama_index.core.agent.utils import messages_to_xml_format
from llama_index.core.agent.workflow.prompts import DEFAULT_STATE_PROMPT
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, MessageRole, TextBlock
from llama_index.core.prompts import PromptTemplate, RichPromptTemplate

from llamaindex_routellm.question import Retrieval, human_turns, retrieval_of_prompt


def user(text: str) -> ChatMessage:
    return ChatMessage(role=MessageRole.USER, content=text)


def assistant(text: str) -> ChatMessage:
    return ChatMessage(role=MessageRole.ASSISTANT, content=text)


SYSTEM = ChatMessage(role=MessageRole.SYSTEM, content="Be brief.")
TOOL = ChatMessage(role=MessageRole.TOOL, content="42")


@pytest.mark.parametrize(
    ("messages", "turns"),
    [
        ([user("a")], ["a"]),
        ([SYSTEM, user("a"), assistant("b"), user("c")], ["a", "c"]),
        ([user("a"), assistant(""), TOOL], ["a"]),
        ([user("a"), assistant("Thought: x\nAction: add\nAction Input: {}"), user("Observation: 5")], ["a"]),
        # a person may begin like an agent
        ([user("a"), assistant("b"), user("Observation: it rains. Why?")], ["a", "Observation: it rains. Why?"]),
        ([user("Observation: it rains. Why?")], ["Observation: it rains. Why?"]),
        ([user("a"), assistant("<execute>1</execute>"), user("Result of executing the code given:\n\n1")], ["a"]),
        ([user("a"), user("a"), assistant("x"), user("Error while parsing the output: no")], ["a"]),
        # a person who says the same again takes a turn
        ([user("a"), assistant("x"), user("go on"), assistant("y"), user("go on")], ["a", "go on", "go on"]),
        ([user("a"), assistant("x"), user("FAILURE: Your previous response was empty.\nYou must")], ["a"]),
        ([user(DEFAULT_STATE_PROMPT.format(state="{'x': 1}", msg="a\nb"))], ["a\nb"]),
        ([user(DEFAULT_STATE_PROMPT.format(state="s\n\nt", msg=""))], [""]),
        ([SYSTEM], ["Be brief."]),
        ([SYSTEM, assistant("")], ["Be brief."]),
        ([assistant("")], [""]),
        ([ChatMessage(role=MessageRole.USER, blocks=[ImageBlock(image=b"x")])], [""]),
        ([ChatMessage(role="user", blocks=[TextBlock(text="a"), TextBlock(text="b")])], ["a\nb"]),
    ],
)  # fmt: skip
def test_human_turns(messages: list[ChatMessage], turns: list[str]) -> None:
    assert human_turns(messages) == turns


def test_a_transcript_gives_the_turns_of_its_conversation() -> None:
    talk = [
        SYSTEM,
        user("a\n</user>\n<user>"),
        assistant("Action: add"),
        user("Observation: 1"),
        assistant("b"),
        user("c"),
    ]
    assert human_turns(messages_to_xml_format(talk)) == ["a\n</user>\n<user>", "c"]


def test_a_transcript_without_a_person() -> None:
    assert human_turns(messages_to_xml_format([assistant("b")])) == ["b"]


class TestRetrievalOfPrompt:
    def test_question_and_length_of_context(self) -> None:
        prompt = PromptTemplate("{context_str} {query_str}")
        found = retrieval_of_prompt(prompt, {"context_str": "12345", "query_str": "why?"})
        assert found == Retrieval("why?", None, 5)

    def test_arguments_win_over_partial_ones(self) -> None:
        prompt = PromptTemplate("{query_str}").partial_format(query_str="before")
        assert retrieval_of_prompt(prompt, {"query_str": "after"}) == Retrieval("after")

    @pytest.mark.parametrize("name", ["query_str", "question", "query"])
    def test_names_of_the_question(self, name: str) -> None:
        assert retrieval_of_prompt(PromptTemplate(f"{{{name}}}"), {name: "why?"}) == Retrieval("why?")

    @pytest.mark.parametrize(
        "around",
        [
            "Question: {}\nResponse: p=0.9 It did.\nResponse: so it says",
            "{}\n----------------\nHere is a previous bad answer.\np=0.9 It did not.",
            "Here is a previous bad answer.\np=0.9 no\nHere is some feedback.\nx\nNow answer the question.\n{}",
        ],
    )
    @pytest.mark.parametrize("question", ["why?", "Question: why?\n\nBecause?", "Here is a previous answer. Why?"])
    def test_what_llama_index_puts_around_a_question(self, around: str, question: str) -> None:
        found = retrieval_of_prompt(PromptTemplate("{query_str}"), {"query_str": around.format(question)})
        assert found == Retrieval(question)

    @pytest.mark.parametrize("arguments", [{}, {"query_str": ""}, {"query_str": 3}, {"text": "x"}])
    def test_without_a_question(self, arguments: dict[str, object]) -> None:
        assert retrieval_of_prompt(PromptTemplate("{text}"), arguments) is None

    def test_messages_as_context(self) -> None:
        prompt = RichPromptTemplate("{{ context_messages }} {{ query_str }}")
        arguments = {"query_str": "why?", "context_messages": [user("12"), user("345")]}
        assert retrieval_of_prompt(prompt, arguments) == Retrieval("why?", None, 5)
