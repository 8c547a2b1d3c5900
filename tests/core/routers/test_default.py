"""The bundled default router: what it must rank, and what its card claims."""

from __future__ import annotations

import io
import json
import random
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import routellm_core
from routellm_core import RoutingPolicy, load_router
from routellm_core.embedders.static import bundled_embedder
from routellm_core.routers.mf_vote import HeadAndVoteRouter
from routellm_core.statistics.metrics import apgr
from routellm_core.training import BattleArrays, fit_mf
from tests.support.shared import needs_data, rows

PRETRAINED = Path(routellm_core.__file__).parent / "pretrained"
STRONG, WEAK = "gpt-4-1106-preview", "mixtral-8x7b-instruct-v0.1"

# Looked at while the recipe was made.
EASY = [
    "hi",
    "hello there",
    "thanks!",
    "Good morning, how are you?",
    "What's the capital of France?",
    "Tell me a joke.",
    "ok",
    "yes",
    "Who wrote Romeo and Juliet?",
    "What color is the sky?",
    "Write a short birthday message for my mom.",
    "Translate 'good night' to Spanish.",
    "What day comes after Monday?",
    "How do you spell necessary?",
    "Name three fruits.",
    "Suggest a name for my cat.",
    "What is 2+2?",
    "Give me a synonym for happy.",
    "Write a tweet about coffee.",
    "Fix the grammar: he go to school.",
]
HARD = [
    "Prove that there are infinitely many primes.",
    "Prove that the square root of 2 is irrational.",
    "Find the number of integer solutions of x^2 + y^2 = 1729 with x > y > 0.",
    "Implement a lock-free concurrent queue in C++ and explain the memory ordering of each atomic operation.",
    "Evaluate the integral of x^2 e^{-x} sin(x) from 0 to infinity.",
    "A train leaves at 3 pm at 60 km/h and another at 4 pm at 90 km/h from 300 km away; when and where do they meet, "
    "and how far has each travelled?",
    "Write a Python function that finds the longest palindromic substring in O(n) time and explain why it is correct.",
    "Derive the Euler-Lagrange equation and use it to solve the brachistochrone problem.",
    "What is the output of this code?\n```python\ndef f(x):\n    return [y for y in x if y % 3 == x[0]]\n"
    "print(f([1, 4, 7, 9]))\n```",
    "Given a graph with negative edge weights, design an algorithm for all-pairs shortest paths and analyse its "
    "complexity.",
    "A 2.0 kg block slides down a frictionless 30 degree incline of length 5 m. What is its speed at the bottom and "
    "how long does it take?",
    "Compute the pH of a 0.10 M solution of acetic acid with Ka = 1.8e-5.",
    "Three people share a bill of $147.50 so that the first pays twice as much as the second and the third pays $12 "
    "less than the first. How much does each pay?",
    "Let G be a finite group of order p^2. Show that G is abelian.",
    "Find all real roots of x^4 - 5x^2 + 4 = 0 and explain each step.",
    "Explain how the Paxos protocol stays safe when two proposers run at the same time and messages are lost.",
    "Suppose that 5 % of people have a disease and a test has 90 % sensitivity and 80 % specificity. What is the "
    "probability that a person who tests positive is ill?",
    "Determine the eigenvalues and eigenvectors of the matrix [[2, 1], [1, 3]].",
    "A company's demand is Q = 100 - 2P and its cost is C = 10 + 4Q. Find the profit-maximising price and quantity.",
    "Write an SQL query that returns the second highest salary in each department without window functions.",
]
# Written after the recipe was fixed.
FRESH_EASY = [
    "Hey, what's up?",
    "What is the opposite of cold?",
    "How many days are in a week?",
    "Who painted the Mona Lisa?",
    "Say something nice about dogs.",
    "Can you recommend a good movie?",
    "What language do they speak in Brazil?",
    "Write a two-line poem about the moon.",
    "Thank you, that was helpful.",
    "What is the plural of mouse?",
    "Is a tomato a fruit?",
    "Wish my friend Anna good luck for her exam.",
]
FRESH_HARD = [
    "Show that every bounded sequence of real numbers has a convergent subsequence.",
    "Solve the differential equation y'' + 4y = sin(2x) with y(0) = 0 and y'(0) = 1.",
    "How many ways are there to put 10 identical balls into 4 boxes so that no box holds more than 4?",
    "A capacitor of 20 microfarad charged to 100 V is connected to a 10 microfarad capacitor. What energy is lost?",
    "Why does quicksort take quadratic time in the worst case, and how does introsort avoid it? Give a proof.",
    "Balance the redox reaction of permanganate with oxalate in acid and compute the moles of gas per gram of KMnO4.",
    "Find the bug:\n```c\nint *f(void) { int a[4] = {1,2,3,4}; return a; }\n```\nand state what the standard says.",
    "A tank fills through pipe A in 6 hours and pipe B in 4 hours and empties through pipe C in 8. If all three are "
    "open and C is closed after 2 hours, how long until it is full?",
    "Under which conditions does the second derivative test fail for f(x, y) = x^4 + y^4 - 4xy + 1? Classify all "
    "critical points.",
    "Explain the difference between res judicata and collateral estoppel when the first judgment is under appeal.",
    "Calculate the expected number of rolls of a fair die until all six faces have been seen.",
    "Implement Dijkstra's algorithm with a Fibonacci heap and derive its amortised complexity.",
]
NO_SIGNAL = ["", "   ", "\u200b\u200b", "?", "...", "continue", "Make it shorter.", "How are you?"]
OTHER_LANGUAGES = [
    "Привет, как дела?",
    "你好",
    "ما هو الذكاء الاصطناعي؟",
    "Erzähl mir einen Witz.",
    "¿Cuál es la capital de Perú?",
    "日本の首都はどこですか？",
    "Bonjour, comment ça va ?",
    "नमस्ते, आप कैसे हैं?",
]


@pytest.fixture(scope="module")
def router() -> HeadAndVoteRouter:
    loaded = load_router()
    assert isinstance(loaded, HeadAndVoteRouter)
    return loaded


def auc(low: np.ndarray, high: np.ndarray) -> float:
    return float(((high[:, None] > low) + 0.5 * (high[:, None] == low)).mean())


def test_it_is_an_mf_with_a_vote_over_the_bundled_embedder(router: HeadAndVoteRouter) -> None:
    assert router.name == "mf_vote"
    assert router.head.name == "mf"
    assert (router.strong, router.weak) == (STRONG, WEAK)
    assert router.embedder is bundled_embedder()
    assert router.calibration is not None
    router.calibration.check_router(router)


def test_the_name_that_loads_it_loads_it_again_when_it_is_saved(router: HeadAndVoteRouter, tmp_path: Path) -> None:
    router.save_pretrained(tmp_path)
    for name in ("mf", "mf_vote"):
        assert load_router(name, tmp_path).fingerprint == router.fingerprint


def test_a_proof_scores_above_a_greeting(router: HeadAndVoteRouter) -> None:
    greeting, proof = router.win_rates(["hi", "Prove that there are infinitely many primes."])
    assert greeting + 0.05 < proof


def test_hard_prompts_score_above_easy_ones(router: HeadAndVoteRouter) -> None:
    assert auc(router.win_rates(EASY), router.win_rates(HARD)) >= 0.88


def test_so_do_those_that_no_choice_was_made_by(router: HeadAndVoteRouter) -> None:
    assert auc(router.win_rates(FRESH_EASY), router.win_rates(FRESH_HARD)) >= 0.85


@pytest.mark.parametrize("prompt", NO_SIGNAL + OTHER_LANGUAGES)
def test_greetings_empty_text_and_other_languages_are_no_hard_prompts(router: HeadAndVoteRouter, prompt: str) -> None:
    assert router.calibration is not None
    assert router.calibration.percentile(float(router.win_rates([prompt])[0])) <= 0.6


def test_half_the_hard_prompts_and_few_of_the_easy_ones_go_to_strong_at_a_third(
    router: HeadAndVoteRouter,
) -> None:
    policy = RoutingPolicy(router, strong_fraction=0.3)
    hard = np.mean([d.model == "strong" for d in policy.decide_batch(HARD + FRESH_HARD)])
    easy = np.mean([d.model == "strong" for d in policy.decide_batch(EASY + FRESH_EASY)])
    assert hard >= 0.5
    assert easy <= 0.1


PAIRS = Path(__file__).resolve().parents[3] / "scripts" / "graded_pairs_test.jsonl"
GRADED = Path(__file__).resolve().parents[3] / "scripts" / "graded_prompts.jsonl"


def test_harder_prompts_score_higher_whichever_is_longer(router: HeadAndVoteRouter) -> None:
    pairs = [json.loads(line) for line in PAIRS.read_text(encoding="utf-8").splitlines()]
    assert len(pairs) == 200
    easier, harder = (router.win_rates([pair[side] for pair in pairs]) for side in ("easier", "harder"))
    right = (harder > easier) + 0.5 * (harder == easier)
    assert right.mean() >= 0.78
    shorter = np.array([pair["longer"] == "easier" for pair in pairs])
    assert shorter.sum() >= 40
    assert right[shorter].mean() >= 0.6


@pytest.mark.parametrize("language", ["de", "es", "fr", "zh"])
def test_translations_rank_like_their_originals(router: HeadAndVoteRouter, language: str) -> None:
    groups: dict[str, dict[str, str]] = {}
    for row in map(json.loads, GRADED.read_text(encoding="utf-8").splitlines()):
        groups.setdefault(row.get("group", ""), {})[row["language"]] = row["prompt"]
    both = [texts for name, texts in groups.items() if name and {"en", language} <= set(texts)]
    assert len(both) >= 50
    rates = [router.win_rates([texts[name] for texts in both]) for name in ("en", language)]
    ranks = [rate.argsort().argsort() for rate in rates]
    assert np.corrcoef(*ranks)[0, 1] >= 0.75  # type: ignore[call-overload]
    # nor is one language sent to strong more often than the other
    assert router.calibration is not None
    shares = [np.mean(rate >= router.calibration.threshold(strong_fraction=0.3)) for rate in rates]
    assert abs(shares[0] - shares[1]) <= 0.2


CHATTER = "Thank you so much for your help with my letter, it was lovely and my sister enjoyed reading the story. "


@pytest.mark.parametrize("between", [" ", "\n"])
@pytest.mark.parametrize(("share", "most"), [(0.5, 0.1), (0.3, 0.15), (0.1, 0.25)])
def test_chatter_hardly_ever_hides_a_prompt_that_goes_to_strong(
    router: HeadAndVoteRouter, share: float, most: float, between: str
) -> None:
    rows = [json.loads(line) for line in GRADED.read_text(encoding="utf-8").splitlines()]
    prompts = [row["prompt"] for row in rows if row["language"] == "en" and len(row["prompt"]) <= 1000]
    assert router.calibration is not None
    threshold = router.calibration.threshold(strong_fraction=share)
    strong = [prompt for prompt, rate in zip(prompts, router.win_rates(prompts), strict=True) if rate >= threshold]
    padded = [f"{CHATTER * 9}{between}{prompt}{between}{CHATTER * 5}" for prompt in strong]
    assert len(strong) > 80
    assert np.mean(router.win_rates(padded) < threshold) <= most


def test_short_word_problems_rank_by_nothing(router: HeadAndVoteRouter) -> None:
    rates = router.win_rates(
        [
            "Tom has 3 apples and buys 5 more. How many apples does he have?",
            "A box holds 12 eggs. How many eggs are in 7 boxes, if 4 of the boxes are only half full?",
            "There are 25 children on a bus and 8 get off. How many are left?",
        ]
    )
    assert len(set(rates.tolist())) == 1


def test_questions_with_options_are_voted_on(router: HeadAndVoteRouter) -> None:
    question = "Which of these is a prime number?\nA. 4\nB. 7\nC. 9\nD. 15\nAnswer:"
    assert router.deciding_text(question) == (question, True)
    assert router.deciding_text("Which of these is a prime number: 4, 7, 9 or 15?")[1] is False


def test_a_batch_equals_its_prompts_bit_for_bit(router: HeadAndVoteRouter) -> None:
    prompts = EASY + HARD + NO_SIGNAL + OTHER_LANGUAGES
    assert router.win_rates(prompts).tolist() == [float(router.win_rates([p])[0]) for p in prompts]


def test_saved_again_it_is_the_same(router: HeadAndVoteRouter, tmp_path: Path) -> None:
    router.save_pretrained(tmp_path)
    again = load_router(tmp_path)
    assert again.fingerprint == router.fingerprint
    assert again.calibration == router.calibration
    assert again.win_rates(HARD).tolist() == router.win_rates(HARD).tolist()


def test_what_ships_is_small_and_is_no_pickle_and_no_row_of_data() -> None:
    files = [f for f in PRETRAINED.rglob("*") if f.is_file()]
    names = {str(f.relative_to(PRETRAINED)) for f in files}
    assert names == {
        "embedder/config.json",
        "embedder/glossary.txt",
        "embedder/model.safetensors",
        "embedder/vocab.txt",
        "mf_vote/README.md",
        "mf_vote/calibration.json",
        "mf_vote/config.json",
        "mf_vote/head/config.json",
        "mf_vote/head/model.safetensors",
        "mf_vote/model.safetensors",
        "mf_vote/trained_on.safetensors",
    }
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files:
            archive.write(file)
    assert packed.tell() < 5.5e6


def test_the_card_says_what_a_reader_needs() -> None:
    card = (PRETRAINED / "mf_vote" / "README.md").read_text(encoding="utf-8")
    for heading in ("Training data", "Licences", "Results", "How the settings were chosen", "Known limits"):
        assert heading in card
    assert bundled_embedder().fingerprint in card
    assert "General chat" in card


def card_apgr(benchmark: str) -> float:
    card = (PRETRAINED / "mf_vote" / "README.md").read_text(encoding="utf-8")
    found = re.search(rf"\| {benchmark} test, [\d,]+ \| \*\*this router\*\* \| (\d\.\d+) ", card)
    assert found is not None
    return float(found[1])


@pytest.mark.slow
@needs_data
@pytest.mark.parametrize(
    ("name", "file", "count", "lowest"),
    [("MMLU", "mmlu", 12_537, 0.665), ("GSM8K", "gsm8k", 1_107, 0.595), ("MT-Bench", "mt_bench", 72, 0.75)],
)
def test_results_on_the_test_splits_are_those_of_the_card(
    router: HeadAndVoteRouter, name: str, file: str, count: int, lowest: float
) -> None:
    used = [r for r in rows(f"benchmarks/{file}") if r["split"] == "test" and not r["contaminated"]]
    assert len(used) == count
    prompts = [r["turns"][0] if "turns" in r else r["prompt"] for r in used]
    strong, weak = (np.array([r["scores"][m] for r in used]) for m in (STRONG, WEAK))
    value = apgr(router.win_rates(prompts), strong, weak)
    assert value == pytest.approx(card_apgr(name), abs=0.0011)
    assert value >= lowest


@pytest.mark.slow
@needs_data
@pytest.mark.parametrize("wanted", [0.1, 0.3, 0.5, 0.7])
def test_the_strong_share_of_real_chats_is_within_three_points(router: HeadAndVoteRouter, wanted: float) -> None:
    prompts = [r["turns"][0] for r in rows("preferences/arena")]
    policy = RoutingPolicy(router, strong_fraction=wanted)
    # halves, so that the share is not merely right on the sample it was fitted to as a whole
    rates = router.win_rates(prompts)
    for half in (rates[::2], rates[1::2]):
        assert np.mean(half >= policy.threshold) == pytest.approx(wanted, abs=0.03)


def made_up_outcomes() -> list[dict[str, Any]]:
    """Outcomes that the subject decides, however hard a prompt looks: the strong model is better at the sea."""
    rng = random.Random(0)
    ways = ["What is {}?", "Explain {} to a child.", "Prove what you know of {}.", "List three facts about {}."]
    sea = ["tides", "coral reefs", "herring", "lighthouses", "the trade winds", "sea salt", "harbours", "ship hulls"]
    land = ["wheat", "alpine meadows", "badgers", "railways", "sand dunes", "rock salt", "quarries", "ox carts"]
    found = []
    for i in range(900):
        at_sea = rng.random() < 0.5
        prompt = f"{rng.choice(ways).format(rng.choice(sea if at_sea else land))} ({i})"
        scores = {STRONG: 1.0, WEAK: float(rng.random() < (0.2 if at_sea else 0.9))}
        found.append({"prompt": prompt, "scores": scores, "split": "gold" if i < 600 else "test"})
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("outcomes", "lowest"), [("made up", 0.65), pytest.param("mmlu", 0.63, marks=needs_data)])
def test_own_labels_beat_the_default_on_their_benchmark(
    outcomes: str, lowest: float, router: HeadAndVoteRouter
) -> None:
    known = made_up_outcomes() if outcomes == "made up" else list(rows(f"benchmarks/{outcomes}"))
    used = [r for r in known if not r.get("contaminated")]
    gold, test = ([r for r in used if r["split"] == s] for s in ("gold", "test"))
    gain = np.array([r["scores"][STRONG] - r["scores"][WEAK] for r in gold])
    n = len(gold)
    trained = fit_mf(
        bundled_embedder().embed([r["prompt"] for r in gold]),
        BattleArrays(np.arange(n), np.zeros(n, dtype=int), np.ones(n, dtype=int), (1 + gain) / 2),
        models=[STRONG, WEAK],
        strong=STRONG,
        weak=WEAK,
        embedder=bundled_embedder(),
    )
    strong, weak = (np.array([r["scores"][m] for r in test]) for m in (STRONG, WEAK))
    prompts = [r["prompt"] for r in test]
    value = apgr(trained.win_rates(prompts), strong, weak)
    assert value >= lowest
    # on MMLU the vote has the very same rows, so that the head alone stands for a router that has not seen them all
    default = router if outcomes == "made up" else router.head
    assert value > apgr(default.win_rates(prompts), strong, weak)


@needs_data
def test_it_knows_the_prompts_that_it_was_trained_on() -> None:
    router = load_router()
    assert router.trained_on is not None
    for split, seen in (("gold", True), ("test", False)):
        prompts = [row["prompt"] for row in rows("benchmarks/mmlu") if row["split"] == split][:300]
        marked = router.trained_on.marks(prompts)
        assert marked.mean() > 0.95 if seen else not marked.any()
