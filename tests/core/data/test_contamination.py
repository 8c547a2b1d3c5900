"""Duplicates and contamination: exact, near, inside longer text, and what must not be flagged."""

from __future__ import annotations

import random

import pytest

from routellm_core import ConfigurationError
from routellm_core.data import ContaminationIndex, DuplicateFinder
from routellm_core.data.contamination import prompt_key

WORDS = [f"word{i}" for i in range(3000)]


def text(seed: int, count: int = 40) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=count))


def changed(original: str, changes: int, seed: int = 0) -> str:
    words = original.split()
    for i in random.Random(seed).sample(range(len(words)), changes):
        words[i] = f"new{i}"
    return " ".join(words)


def jaccard(a: str, b: str) -> float:
    def grams(t: str) -> set[tuple[str, ...]]:
        w = t.split()
        return {tuple(w[i : i + 3]) for i in range(len(w) - 2)}

    return len(grams(a) & grams(b)) / len(grams(a) | grams(b))


def test_case_punctuation_and_spacing_do_not_hide_a_repeat() -> None:
    index = ContaminationIndex(["What is the capital of France?", "Solve x + 1 = 2."])
    match = index.match("  what is THE capital of\nfrance")
    assert match == (0, 1.0, True)
    assert index.match("What is the capital of Spain?") is None
    assert prompt_key("Ｈｅｌｌｏ, World") == prompt_key("hello world")
    assert prompt_key("!!!") != prompt_key("???")


def test_a_near_repeat_is_found_and_an_unrelated_prompt_is_not() -> None:
    index = ContaminationIndex([text(i) for i in range(200)])
    match = index.match(changed(text(7), 2))
    assert match is not None
    assert match.position == 7
    assert not match.exact
    assert 0.8 <= match.similarity < 1
    assert not any(index.match(text(i)) for i in range(1000, 1300))


def test_a_question_is_found_inside_a_longer_prompt_and_the_other_way_round() -> None:
    question = text(1, 30)
    longer = f"{text(2, 100)} {question} {text(3, 50)}"
    assert ContaminationIndex([question]).match(longer) == (0, 1.0, False)
    assert ContaminationIndex([longer]).match(question) == (0, 1.0, False)


def test_a_template_that_all_prompts_share_is_not_a_match() -> None:
    template = "Answer the following multiple choice question with the letter of the right option and nothing else"
    evaluation = [f"{template}: {text(i, 12)}" for i in range(100)]
    index = ContaminationIndex(evaluation)
    assert index.match(f"{template}: {text(5000, 12)}") is None
    match = index.match(evaluation[42])
    assert match is not None
    assert match.position == 42
    bare = index.match(text(42, 12))
    assert bare is not None
    assert bare.position == 42


def test_scripts_without_spaces_are_compared_by_character() -> None:
    chinese = "请解释一下光合作用的过程以及它为什么对地球上的生命如此重要"
    index = ContaminationIndex([chinese])
    assert index.match("老师好！" + chinese + "谢谢") is not None
    assert index.match("请写一首关于春天的诗并且解释每一行的意思和它的象征") is None


@pytest.mark.parametrize("prompt", ["", "   ", "hi", "🙂", "\ud83d", "a" * 100_000])
def test_any_string_can_be_looked_up(prompt: str) -> None:
    index = ContaminationIndex([text(0), prompt])
    assert index.match(prompt) == (1, 1.0, True)
    finder = DuplicateFinder()
    assert finder.add(prompt) is None
    assert finder.add(prompt) == (0, 1.0, True)


def test_duplicates_are_found_by_similarity() -> None:
    finder = DuplicateFinder(threshold=0.7)
    originals = [text(i, 60) for i in range(300)]
    assert [finder.add(t) for t in originals] == [None] * 300
    near = [changed(t, 2, i) for i, t in enumerate(originals)]
    found = [finder.add(t) for t in near]
    truth = [jaccard(a, b) for a, b in zip(originals, near, strict=True)]
    assert min(truth) > 0.8
    hit = [i for i, d in enumerate(found) if d is not None]
    assert len(hit) >= 0.98 * len(near)
    assert all(found[i].position == i for i in hit)  # type: ignore[union-attr]
    assert all(abs(found[i].similarity - truth[i]) < 0.15 for i in hit)  # type: ignore[union-attr]
    one = DuplicateFinder(threshold=0.8)
    one.add(originals[0])
    assert one.add(changed(originals[0], 1)) is not None
    assert one.add(changed(originals[0], 20)) is None


def test_exact_only() -> None:
    finder = DuplicateFinder(threshold=None)
    finder.add(text(0))
    assert finder.add(changed(text(0), 1)) is None
    assert finder.add(text(0).upper()) == (0, 1.0, True)


def test_the_same_prompts_give_the_same_answer_in_every_run() -> None:
    prompts = [changed(text(i % 50), i % 4, i) for i in range(200)]
    first, second = DuplicateFinder(), DuplicateFinder()
    assert [first.add(p) for p in prompts] == [second.add(p) for p in prompts]


@pytest.mark.parametrize("threshold", [0, 1.5, -1, True, "0.8"])
def test_a_threshold_out_of_range_is_refused(threshold: object) -> None:
    with pytest.raises(ConfigurationError, match="threshold"):
        ContaminationIndex([], threshold=threshold)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="threshold"):
        DuplicateFinder(threshold=threshold)  # type: ignore[arg-type]
