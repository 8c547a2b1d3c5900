"""Gold labels: answers of many kinds against right ones, graders of a user's own, and a report that hides nothing."""

from __future__ import annotations

import math
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routellm_core import ConfigurationError, DataError
from routellm_core.data import AnsweredPrompt, read_answers, read_outcomes, write_records
from routellm_core.labelling import GoldReport, gold_outcomes, grade
from routellm_core.labelling.gold import grade_in_detail
from routellm_core.labelling.reading.choices import extract_choice, extract_yes_no, options_in
from routellm_core.labelling.reading.conclusions import concluding_numbers
from routellm_core.labelling.reading.dates import Date, dates_in
from routellm_core.labelling.reading.forms import GoldKind
from routellm_core.labelling.reading.quantities import quantity_of, written_numbers_in
from tests.core.labelling import graded_answers
from tests.core.labelling.graded_answers import KNOWN_DIFFERENCES, Question


def graded_by_hand(questions: list[Question], kind: GoldKind) -> tuple[int, list[tuple[Any, str]]]:
    """The number of answers, and those that `grade` calls otherwise than the person did."""
    judged = [(q, answer, True) for q in questions for answer in q.right]
    judged += [(q, answer, False) for q in questions for answer in q.wrong]
    return len(judged), [
        (q.gold, answer)
        for q, answer, right in judged
        if (grade(answer, q.gold, kind, prompt=q.prompt) is True) != right
    ]


@pytest.mark.parametrize("name", graded_answers.BY_KIND)
def test_grades_agree_with_a_person(name: str) -> None:
    count, differences = graded_by_hand(graded_answers.BY_KIND[name], "auto")
    assert count >= 20
    assert set(differences) <= set(KNOWN_DIFFERENCES)


def test_the_graded_answers_are_many_and_the_differences_few() -> None:
    everything = [question for questions in graded_answers.BY_KIND.values() for question in questions]
    count, differences = graded_by_hand(everything, "auto")
    assert count >= 950
    assert set(differences) == set(KNOWN_DIFFERENCES)  # one that is mended leaves the list
    assert len(differences) <= count / 100


def test_exact_grades_agree_with_a_person() -> None:
    assert graded_by_hand(graded_answers.EXACT, "exact")[1] == []


def test_choice_letters() -> None:
    cases = {
        "B": "B",
        "B.": "B",
        "(c)": "C",
        "D) because it is": "D",
        "The answer is (B).": "B",
        "the answer is **D**": "D",
        "Answer: A": "A",
        r"so \boxed{C}": "C",
        "A is wrong, B is wrong. The correct answer is C": "C",
        "I first thought the answer is A. But no: the answer is B": "B",
        "Let me think.\n\nB": "B",
        "The answer is a bit unclear": None,
        "I do not know": None,
        "": None,
        "The answer is Z": None,
        "C is correct; only B is wrong.": "C",
        "A is right, and only (B) is not.": "A",
    }
    assert {text: extract_choice(text) for text in cases} == cases


def test_numbers() -> None:
    cases = {
        "#### 42": 42,
        "There are 3 + 4 = 7 apples": 7,
        "It costs $1,234.50.": 1234.5,
        r"\boxed{-3}": -3,
        "The answer is 12. I checked it 2 times": 12,
        "about 1e3": 1000,
        "18.00": 18,
        "\u22125 degrees": -5,
        "no number": None,
        "model v2": None,
        "": None,
    }
    found = {text: concluding_numbers(text) for text in cases}
    assert {text: float(n[0].values[0]) if n else None for text, n in found.items()} == cases


@pytest.mark.parametrize(
    ("answer", "gold", "kind", "right"),
    [
        ("The answer is B", "B", "auto", True),
        ("The answer is A", "(B)", "auto", False),
        ("no idea", "B", "auto", None),
        ("so 18.0 dollars", "18", "auto", True),
        ("#### 1,000", "long reasoning #### 1000", "auto", True),
        ("17", "18", "number", False),
        ("none", "18", "number", None),
        ("Paris!", "paris", "auto", True),
        ("It is Paris", "Paris", "exact", False),
        ("B", "42", "exact", False),
        ("…", "…", "exact", True),
    ],
)
def test_grading(answer: str, gold: str, kind: Any, right: bool | None) -> None:
    assert grade(answer, gold, kind) is right


def test_gold_of_the_wrong_form_is_an_error() -> None:
    with pytest.raises(DataError, match="gold"):
        grade("A", "forty two", "number")
    with pytest.raises(DataError, match="gold"):
        grade("A", "AB", "choice")
    with pytest.raises(ConfigurationError, match="kind"):
        grade("A", "A", "fuzzy")  # type: ignore[arg-type]


def test_gold_outcomes_account_for_every_row() -> None:
    rows = [
        AnsweredPrompt(prompt="1", answers={"big": "B", "small": "C"}, gold="B", id="x", weight=2),
        AnsweredPrompt(prompt="2", answers={"big": "who knows", "small": "B"}, gold="B"),
        AnsweredPrompt(prompt="3", answers={"big": "B"}),
        AnsweredPrompt(prompt="4", gold="B"),
    ]
    report = GoldReport()
    got = list(gold_outcomes(rows, report=report))
    assert [(o.scores, o.source, o.weight) for o in got] == [
        ({"big": 1, "small": 0}, "gold", 2),
        ({"big": 0, "small": 1}, "gold", 1),
    ]
    assert (report.rows, report.unreadable, report.without_gold, report.without_answers) == (2, {"big": 1}, 1, 1)


def test_sentences_that_hold_a_text_gold_are_right() -> None:
    capitals = {"Chile": "Santiago", "Peru": "Lima", "Kenya": "Nairobi", "Norway": "Oslo", "Cuba": "Havana"}
    forms = ("The capital of {} is {}.", "{}'s capital city is {}", "Q: What is the capital of {}?\nA: {}.")
    for country, capital in capitals.items():
        for form in forms:
            assert grade(form.format(country, capital), capital) is True
            assert grade(form.format(country, "Springfield"), capital) is False


@pytest.mark.parametrize(
    ("gold", "kind"),
    [
        ("B", "choice"),
        ("(b)", "choice"),
        ("Yes", "yes_no"),
        ("false", "yes_no"),
        ("18", "number"),
        ("$1,000", "number"),
        (r"\frac{1}{2}", "number"),
        ("12 apples", "number"),
        ("about 70%", "number"),
        ("so 9 * 2 = 18\n#### 18", "number"),
        ("2020-02-29", "date"),
        ("5th of May", "date"),
        ("May", "text"),
        ("1990s", "text"),
        ("21 Pilots", "text"),
        ("World War 2", "text"),
        ("x^2", "text"),
        ("Santiago", "text"),
    ],
)
def test_the_kind_follows_the_form_of_the_gold(gold: str, kind: str) -> None:
    assert grade_in_detail("an answer", gold).kind == kind


def test_gold_of_each_kind_must_have_its_form() -> None:
    kinds: tuple[GoldKind, ...] = ("choice", "yes_no", "number", "date")
    for kind in kinds:
        with pytest.raises(DataError, match=f"kind='{kind}'"):
            grade("an answer", "some text", kind)
    for empty in ("", " ", (), ("",)):
        with pytest.raises(DataError, match="empty"):
            grade("an answer", empty)


def test_details_of_a_grade() -> None:
    right = grade_in_detail("Santiago.", "Santiago")
    longer = grade_in_detail("It is Santiago, I believe.", "Santiago")
    elsewhere = grade_in_detail("Not Santiago but Lima.", "Santiago")
    refusal = grade_in_detail("I'm sorry, I cannot answer this.", "Santiago")
    lost = grade_in_detail("hm", "18")
    assert (right.right, right.says_more) == (True, False)
    assert (longer.right, longer.says_more) == (True, True)
    assert (elsewhere.right, elsewhere.mentions_gold, elsewhere.refuses) == (False, True, False)
    assert (refusal.right, refusal.refuses) == (False, True)
    assert (lost.right, lost.refuses) == (None, False)
    other_number = grade_in_detail("It was 18 at first. The answer is 20.", "18")
    assert (other_number.right, other_number.mentions_gold) == (False, True)


def test_numbers_in_words_and_their_units() -> None:
    cases = {
        "twenty-one": [21],
        "one hundred and five dollars": [105],
        "two thousand and one": [2001],
        "two thirds": [2 / 3],
        "three and a half": [3.5],
        "a dozen": [12],
        "one, two, three": [1, 2, 3],
        "band and sand": [],
    }
    for text, numbers in cases.items():
        assert [float(n.values[0]) for n in written_numbers_in(text)] == pytest.approx(numbers)
    for text in ("World War 2", "21 Pilots", "5-10", "3, 4", "Apollo 11", "v2", ""):
        assert quantity_of(text) is None


def test_enormous_numbers_do_not_stall_a_run() -> None:
    assert grade("9" * 100_000, "9") in (False, None)
    assert grade("1e999999999", "9") is False
    assert grade("2^99999999", "9") is False
    assert grade("(" * 50_000 + "9", "9") is not None


@pytest.mark.parametrize(
    "piece", ["*", "$", "\n", " ", "(", "1,", "1 ", "\\frac{", "A) x  ", "answer is ", "<think>", "- "]
)
def test_what_a_broken_model_repeats_is_no_answer(piece: str) -> None:
    text = piece * 4_000
    for gold in ("B", "yes", "718", "July 4, 1776", "Santiago", r"2\sqrt{3}"):
        assert grade(text, gold, prompt=text) is not True


PIECES = [
    *"0123456789 .,:;-+*/^%$()[]{}\\\n'\"<>=#&|", "A", "b", "é", "½", "²", "√", "٣", "五", "\u0301", "\ud800", "not ",
    " or ", "answer is ", "\\boxed{", "\\frac", "####", "million", "percent", "May ", "yes", "km", "one ",
    " and a half", "I can't ",
]  # fmt: skip
SOUP = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), min_size=1, max_size=20).map("".join)
INTEGER_FORMS = ["{:,}", "{}", "{}.0", "The answer is {:,}.", "**{}**", "so {} apples"]
DATE_FORMS = ["%B %d, %Y", "%d %B %Y", "%Y-%m-%d", "%d %b. %Y", "on the %dth of %B, %Y", "%m/%d/%Y"]


@given(SOUP, SOUP.filter(str.strip))
def test_any_answer_can_be_graded_against_any_gold(answer: str, gold: str) -> None:
    found = grade_in_detail(answer, gold, prompt=answer)
    assert found.right in (True, False, None)
    assert not (found.right and (found.mentions_gold or found.refuses))
    assert grade(gold, gold, "exact") is True


@given(st.integers(-(10**12), 10**12), st.sampled_from(INTEGER_FORMS))
def test_an_integer_is_right_however_it_is_written(number: int, form: str) -> None:
    assert grade(form.format(number), str(number)) is True
    assert grade(form.format(number), f"{number:,}") is True
    assert grade(form.format(number + 1), str(number)) is False


@given(st.dates(min_value=date(1000, 1, 1)), st.sampled_from(DATE_FORMS))
def test_a_date_is_right_however_it_is_written(day: date, form: str) -> None:
    assert grade(day.strftime(form), day.isoformat()) is True
    other = day - timedelta(days=1)
    if (other.day, other.month) != (day.month, day.day):  # 03/04 may be either
        assert grade(other.strftime(form), day.isoformat()) is False


def test_dates_have_readings_and_precision() -> None:
    assert dates_in("03/04/2020")[0].dates == (Date(2020, 3, 4), Date(2020, 4, 3))
    assert dates_in("13/04/2020")[0].dates == (Date(2020, 4, 13),)
    assert [m.dates[0] for m in dates_in("from 1 May to June 2, 1999")] == [Date(None, 5, 1), Date(1999, 6, 2)]
    assert dates_in("May the force be with you, 99/99/2020 and 2020-13-45") == []
    assert Date(1999, 5, None).covers(Date(1999, 5, 3))
    assert not Date(1999, 5, 3).covers(Date(1999, 5, None))


def test_options_of_a_prompt() -> None:
    expected = {"A": "red", "B": "dark blue", "C": "green"}
    for prompt in (
        "Which?\nA) red\nB) dark blue\nC) green",
        "Which?\n(A) red\n(B) dark blue\n(C) green",
        "Which?  A. red  B. dark blue  C. green",
        "Which?\n A: red\n B: dark blue\n C: green\n",
    ):
        assert options_in(prompt) == expected
    assert options_in("A) only one") == {}
    assert options_in("Is vitamin B: good? C. Darwin thought so") == {}


def test_yes_and_no_are_not_taken_from_other_words() -> None:
    for text in ("There is no doubt about it", "I know", "Yesterday", "The north", "nothing", ""):
        assert extract_yes_no(text) is None


def test_a_grader_of_ones_own(tmp_path: Path) -> None:
    rows = [
        AnsweredPrompt(prompt="double x", answers={"big": "x * 2", "small": "x + 2"}, gold="6", id="1", source="code"),
        AnsweredPrompt(
            prompt="halve x", answers={"big": "x / 2", "small": "no code"}, gold="1.5", id="2", source="code"
        ),
        AnsweredPrompt(prompt="free", answers={"big": "poem"}, id="3"),
    ]
    seen = []

    def runs(answer: str, gold: str | None, *, prompt: str) -> float | bool | None:
        seen.append(prompt)
        if gold is None:
            return None
        try:
            return bool(eval(answer, {"x": 3}) == float(gold))
        except SyntaxError:
            return 0.25

    report = GoldReport()
    assert write_records(tmp_path / "o.jsonl", gold_outcomes(rows, grader=runs, report=report)) == 2
    written = [outcome.scores for outcome in read_outcomes(tmp_path / "o.jsonl")]
    assert written == [{"big": 1, "small": 0}, {"big": 1, "small": 0.25}]
    assert (report.rows, report.ungraded, report.without_gold) == (2, 1, 0)
    assert report.tallies["small"]["code"].mean == pytest.approx(0.125)
    free = report.tallies["big"]["gold"]
    assert (free.answers, free.ungraded, free.to_dict()["mean"]) == (0, 1, None)
    assert math.isnan(free.mean)
    assert seen == ["double x", "double x", "halve x", "halve x", "free"]
    # two arguments will do
    (outcome,) = gold_outcomes(rows[:1], grader=lambda answer, gold: len(answer) / len(gold))
    assert outcome.scores == {"big": 5, "small": 5}


def test_a_grader_that_fails_is_told_from_the_data() -> None:
    rows = [AnsweredPrompt(prompt="private question", answers={"big": "private answer"}, gold="g", id="row 7")]

    def broken(answer: str, gold: str) -> float:
        raise KeyError(answer)

    with pytest.raises(ConfigurationError, match=r"broken.*'row 7'.*KeyError") as caught:
        list(gold_outcomes(rows, grader=broken))
    assert "private" not in str(caught.value)

    def one_argument(answer: str) -> float:
        return 1.0

    with pytest.raises(
        ConfigurationError, match=r"TypeError .*\(answer, gold\); expected def grade\(answer, gold, prompt\)"
    ):
        list(gold_outcomes(rows, grader=one_argument))

    def needs_gold(answer: str, gold: str, prompt: str) -> bool:
        return gold.strip() in answer

    without_gold = [AnsweredPrompt(prompt="q", answers={"big": "a"})]
    with pytest.raises(ConfigurationError, match=r"AttributeError .*\(answer, None, prompt=prompt\)$"):
        list(gold_outcomes(without_gold, grader=needs_gold))
    for value in ("yes", float("nan"), [1]):
        with pytest.raises(ConfigurationError, match="expected a number"):
            list(gold_outcomes(rows, grader=lambda answer, gold, value=value: value))
    with pytest.raises(ConfigurationError, match="grader="):
        gold_outcomes(rows, grader=5)  # type: ignore[arg-type]


def test_a_grader_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_graders.py").write_text("def length(answer, gold):\n    return len(answer)\n\n\nnumber = 5\n")
    monkeypatch.syspath_prepend(tmp_path)
    rows = [AnsweredPrompt(prompt="p", answers={"big": "four"})]
    (outcome,) = gold_outcomes(rows, grader="my_graders:length")
    assert outcome.scores == {"big": 4}
    for wrong in ("my_graders:missing", "my_graders:number", "no_such_module:length", "my_graders", ""):
        with pytest.raises(ConfigurationError, match="grader="):
            gold_outcomes(rows, grader=wrong)


def test_the_report_tells_models_and_sources_apart() -> None:
    rows = [
        AnsweredPrompt(prompt="1", answers={"big": "It is Lima.", "small": "Quito"}, gold="Lima", source="capitals"),
        AnsweredPrompt(prompt="2", answers={"big": "Oslo", "small": "I don't know."}, gold="Oslo", source="capitals"),
        AnsweredPrompt(prompt="3", answers={"big": "so 4", "small": "5, not 4"}, gold="4", source="sums"),
        AnsweredPrompt(prompt="4", answers={"big": "hm", "small": "4"}, gold="4", source="sums"),
    ]
    report = GoldReport()
    list(gold_outcomes(rows, report=report))
    assert report.kinds == {"text": 2, "number": 2}
    big, small = report.tallies["big"], report.tallies["small"]
    assert {source: tally.mean for source, tally in big.items()} == {"capitals": 1.0, "sums": 0.5}
    assert {source: tally.mean for source, tally in small.items()} == {"capitals": 0.0, "sums": 0.5}
    assert (big["capitals"].says_more, big["sums"].says_more, big["sums"].unreadable) == (1, 1, 1)
    assert (small["capitals"].refused, small["capitals"].unreadable, small["sums"].mentions_gold) == (1, 0, 1)
    assert report.to_dict()["models"]["small"]["capitals"]["refused"] == 1


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [AnsweredPrompt(prompt="p", answers={"big": "B"})],
        [AnsweredPrompt(prompt="p", gold="B")],
        [AnsweredPrompt(prompt="p", answers={"big": "B"}, gold="no letter")],
    ],
)
def test_an_older_file_stays_when_nothing_can_be_graded(rows: list[AnsweredPrompt], tmp_path: Path) -> None:
    (tmp_path / "o.jsonl").write_text("older\n")
    with pytest.raises(DataError, match="no row could be graded"):
        write_records(tmp_path / "o.jsonl", gold_outcomes(rows, kind="choice"))
    assert (tmp_path / "o.jsonl").read_text() == "older\n"
    assert [path.name for path in tmp_path.iterdir()] == ["o.jsonl"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_lists_of_accepted_answers_and_booleans_survive_a_file(name: str, tmp_path: Path) -> None:
    rows = [
        AnsweredPrompt(prompt="city", answers={"big": "It's NYC."}, gold=("New York City", "NYC")),
        AnsweredPrompt(prompt="list", answers={"big": "[1, 2]"}, gold="[1, 2]"),
        AnsweredPrompt.model_validate({"prompt": "is it?", "answers": {"big": "Yes."}, "gold": True}),
    ]
    write_records(tmp_path / name, rows)
    assert [row.gold for row in read_answers(tmp_path / name)] == [("New York City", "NYC"), "[1, 2]", "yes"]
    assert [o.scores["big"] for o in gold_outcomes(read_answers(tmp_path / name))] == [1, 1, 1]


def test_grading_a_set_of_models_differs_by_what_they_know() -> None:
    capitals = ["Oslo", "Lima", "Nairobi", "Havana", "Santiago"]
    rows = [
        AnsweredPrompt(
            prompt=f"q{i}",
            answers={"big": f"The capital is {capital}.", "small": capital if i < 2 else "I think it is Paris."},
            gold=capital,
        )
        for i, capital in enumerate(capitals)
    ]
    report = GoldReport()
    list(gold_outcomes(rows, report=report))
    assert report.tallies["big"]["gold"].mean == 1.0
    assert report.tallies["small"]["gold"].mean == pytest.approx(0.4)
