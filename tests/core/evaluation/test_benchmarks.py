"""Loaders of benchmarks: tidy files, the authors' repository layout, and outcomes of the user."""

import gzip
import json

import numpy as np
import pytest

from routellm_core import ConfigurationError, DataError
from routellm_core.evaluation.benchmarks import BENCHMARKS, PUBLISHED, STRONG, WEAK, load_benchmark, load_outcomes
from tests.support.shared import DATA, GOLDEN, needs_data, needs_golden


def write_lines(path, rows, *, zipped=False):
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()) if zipped else text.encode())
    return path


def row(prompt="hi", strong=1.0, weak=0.0, **more):
    return {"prompt": prompt, "scores": {STRONG: strong, WEAK: weak}, **more}


@needs_data
@pytest.mark.parametrize(
    ("name", "count", "strong", "weak", "dropped"),
    [("mmlu", 14_037, 0.8059, 0.6809, 5), ("gsm8k", 1307, 0.8577, 0.6373, 12), ("mt-bench", 72, 9.2118, 8.2813, 8)],
)
def test_shared_benchmarks_have_the_published_means(name, count, strong, weak, dropped):
    found = load_benchmark(name, DATA, split="all")
    assert (len(found.prompts), found.dropped) == (count, dropped)
    assert found.strong_scores.mean() == pytest.approx(strong, abs=5e-5)
    assert found.weak_scores.mean() == pytest.approx(weak, abs=5e-5)


@needs_data
@needs_golden
def test_rows_are_those_of_the_golden_file():
    with np.load(GOLDEN / "bench_mmlu.npz") as golden:
        found = load_benchmark("mmlu", DATA / "benchmarks", split="all")
        np.testing.assert_array_equal(found.strong_scores, golden["strong"])
        np.testing.assert_array_equal(found.weak_scores, golden["weak"])


def test_splits_part_the_rows(tmp_path):
    rows = [row(f"prompt {i}", split="gold" if i % 6 == 0 else "test") for i in range(1207)]
    write_lines(tmp_path / "benchmarks" / "gsm8k.jsonl.gz", rows, zipped=True)
    parts = {split: load_benchmark("gsm8k", tmp_path, split=split).prompts for split in ("test", "gold", "all")}
    assert [len(parts[split]) for split in ("test", "gold", "all")] == [1005, 202, 1207]
    assert set(parts["test"]) | set(parts["gold"]) == set(parts["all"])
    assert load_benchmark("gsm8k", tmp_path).title == "GSM8K test, 1,005 prompts"


def test_tidy_rows(tmp_path):
    rows = [
        row("a", split="test"),
        row("b", split="gold"),
        row("c", split="test", contaminated=True),
        {"turns": ["first", "second"], "scores": {STRONG: 9.5, WEAK: 8}},
    ]
    for file in (write_lines(tmp_path / "mmlu.jsonl.gz", rows, zipped=True), write_lines(tmp_path / "x.jsonl", rows)):
        found = load_benchmark("mmlu", file)
        assert found.prompts == ("a", "first")
        assert found.strong_scores.tolist() == [1.0, 9.5]
        assert (found.strong, found.weak, found.dropped, found.split) == (STRONG, WEAK, 1, "test")
    assert load_benchmark("mmlu", tmp_path, split="gold").prompts == ("b",)
    assert load_benchmark("MMLU", tmp_path, split="all").title == "MMLU, 3 prompts"


def authors_repository(root):
    """The layout of lm-sys/RouteLLM, with rows of our own."""
    evals = root / "routellm" / "evals"
    strong, weak = "gpt-4-1106-preview", "mistralai/Mixtral-8x7B-Instruct-v0.1"
    for domain, body in {
        "anatomy": '"Which bone?\nA. one\nB. two\nAnswer:",True,False\n"Dirty one",True,True\n',
        "zoology": "Which cat?,False,True\n",
    }.items():
        file = evals / "mmlu" / "responses" / f"mmlu_{domain}.csv"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"prompt,{strong},{weak}\n{body}")
    write_lines(evals / "mmlu" / "contaminated_prompts.jsonl", [{"eval_prompt": "Dirty one", "train_idx": 3}])
    gsm = evals / "gsm8k" / "gsm8k_responses.csv"
    gsm.parent.mkdir(parents=True)
    gsm.write_text(
        f"prompt,{weak},{strong},{weak}_response,{strong}_response\n"
        'How many?,False,True,"it is ""5""\nno","6"\nHow few?,True,True,True,7\nSpoilt,True,True,1,1\n'
    )
    write_lines(evals / "gsm8k" / "contaminated_prompts.jsonl", [{"eval_prompt": "Spoilt"}])
    write_lines(
        evals / "mt_bench" / "question.jsonl",
        [
            {"question_id": 81, "category": "writing", "turns": ["Write.", "Again."]},
            {"question_id": 82, "category": "writing", "turns": ["Draw.", "Dirty turn."]},
        ],
    )
    write_lines(
        evals / "mt_bench" / "judgements.jsonl",
        [
            {"question_id": q, "model": m, "turn": t, "score": 10 - t - 3 * (m == weak), "judge": ["gpt-4", "x"]}
            for q in (81, 82)
            for m in (strong, weak, "another")
            for t in (1, 2)
        ],
    )
    write_lines(evals / "mt_bench" / "contaminated_prompts.jsonl", [{"eval_prompt": "Dirty turn."}])
    return root


def test_the_authors_layout(tmp_path):
    root = authors_repository(tmp_path / "RouteLLM")
    mmlu = load_benchmark("mmlu", root)
    assert mmlu.prompts == ("Which bone?\nA. one\nB. two\nAnswer:", "Which cat?")
    assert mmlu.strong_scores.tolist() == [1.0, 0.0]
    assert mmlu.weak_scores.tolist() == [0.0, 1.0]
    assert mmlu.dropped == 1
    gsm8k = load_benchmark("gsm8k", root / "routellm" / "evals")
    assert gsm8k.prompts == ("How many?", "How few?")
    assert gsm8k.weak_scores.tolist() == [0.0, 1.0]
    # routes on turn 1, scores both turns, and a question goes when either turn is contaminated
    mt_bench = load_benchmark("mt_bench", root)
    assert mt_bench.prompts == ("Write.",)
    assert mt_bench.strong_scores.tolist() == [8.5]
    assert mt_bench.weak_scores.tolist() == [5.5]
    assert mt_bench.dropped == 1
    with pytest.raises(DataError, match="no 'gold' split"):
        load_benchmark("mmlu", root, split="gold")
    (root / "routellm" / "evals" / "gsm8k" / "contaminated_prompts.jsonl").unlink()
    with pytest.raises(DataError, match="contaminated"):
        load_benchmark("gsm8k", root)


def test_malformed_files_of_the_authors_are_named(tmp_path):
    root = authors_repository(tmp_path)
    folder = root / "routellm" / "evals" / "mt_bench"
    write_lines(folder / "judgements.jsonl", [{"question_id": 81, "score": 3}])
    with pytest.raises(DataError, match=r"judgements\.jsonl, line 1: no field 'model'"):
        load_benchmark("mt-bench", root)
    write_lines(folder / "judgements.jsonl", [{"question_id": 81, "model": "m", "score": "ten"}])
    with pytest.raises(DataError, match="expected a finite number"):
        load_benchmark("mt-bench", root)
    write_lines(folder / "contaminated_prompts.jsonl", [{"prompt": "x"}])
    with pytest.raises(DataError, match="no field 'eval_prompt'"):
        load_benchmark("mt-bench", root)
    (root / "routellm" / "evals" / "gsm8k" / "gsm8k_responses.csv").write_bytes(b"prompt,a\n\xff\xfe,True\n")
    with pytest.raises(DataError, match=r"gsm8k_responses\.csv, line 2: not UTF-8"):
        load_benchmark("gsm8k", root)


def test_a_file_too_large_to_hold_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr("routellm_core.evaluation.benchmarks.MAX_PROMPT_CHARS", 100)
    file = write_lines(tmp_path / "huge.jsonl", [row("x" * 30)] * 10)
    with pytest.raises(DataError, match=r"line 4: more than 100 characters of prompts.*shuf -n 50000 huge\.jsonl"):
        load_outcomes(file)


def test_outcomes_of_two_models_need_no_names(tmp_path):
    file = write_lines(
        tmp_path / "mine.jsonl",
        [{"prompt": str(i), "scores": {"small": 0.2, "big": 0.9}, "answer": "x"} for i in range(3)],
    )
    found = load_outcomes(file)
    assert (found.name, found.strong, found.weak) == ("mine", "big", "small")
    swapped = load_outcomes(file, strong="SMALL", weak="org/big")
    assert (swapped.strong, swapped.weak) == ("small", "big")


def test_outcomes_of_many_models_keep_those_of_every_row(tmp_path):
    rows = [{"prompt": "a", "scores": {"x": 1, "y": 0, "z": 0.5}}, {"prompt": "b", "scores": {"x": True, "y": 0}}]
    file = write_lines(tmp_path / "many.jsonl", rows)
    found = load_outcomes(file, strong="x", weak="y")
    assert set(found.scores) == {"x", "y"}
    rows[1]["scores"]["z"] = 1  # type: ignore[index]
    file = write_lines(tmp_path / "many.jsonl", rows)
    with pytest.raises(ConfigurationError, match="3 models: name strong= and weak="):
        load_outcomes(file)
    with pytest.raises(ConfigurationError, match="name both"):
        load_outcomes(file, strong="x")
    with pytest.raises(ConfigurationError, match=r"strong='q'.*x, y, z"):
        load_outcomes(file, strong="q", weak="y")
    with pytest.raises(ConfigurationError, match="same model"):
        load_outcomes(file, strong="x", weak="X")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("{broken\n", "line 1: not JSON"),
        ("[1, 2]\n", "item 1: expected a JSON object, got a number"),
        ('{"prompt": "a"}\n', "line 1: expected outcomes .*; fields seen: prompt"),
        ('{"prompt": "a", "scores": {}}\n', "line 1: field 'scores': expected at least one model"),
        ('{"prompt": 5, "scores": {"a": 1, "b": 0}}\n', "line 1: field 'prompt': expected a text, got a number"),
        (
            '{"prompt": "a", "scores": {"a": NaN, "b": 0}}\n',
            "line 1: field 'scores.a': expected a finite number, got nan",
        ),
        ('{"prompt": "a", "scores": {"a": null, "b": 0}}\n', "models with a score in every row: b; at least 2"),
        ('{"prompt": "a", "scores": {"a": 1}}\n', "models with a score in every row: a; at least 2"),
        ('{"prompt": "a", "contaminated": true, "scores": {"a": 1, "b": 0}}\n', r"no rows left \(1 contaminated"),
    ],
)
def test_malformed_outcomes_are_named(tmp_path, text, words):
    file = tmp_path / "bad.jsonl"
    file.write_text(text)
    with pytest.raises(DataError, match=words):
        load_outcomes(file)


def test_damaged_and_missing_files_are_named(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        load_outcomes(tmp_path / "none.jsonl")
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"prompt": "a"}' * 1000)[:-20])
    with pytest.raises(DataError, match="damaged"):
        load_outcomes(tmp_path / "cut.jsonl.gz")
    (tmp_path / "latin.jsonl").write_bytes(b'{"prompt": "\xe9"}\n')
    with pytest.raises(DataError, match="not UTF-8"):
        load_outcomes(tmp_path / "latin.jsonl")
    with pytest.raises(DataError, match="no mmlu data"):
        load_benchmark("mmlu", tmp_path)
    with pytest.raises(ConfigurationError, match="benchmark='arc'"):
        load_benchmark("arc", tmp_path)
    with pytest.raises(ConfigurationError, match="split='train'"):
        load_benchmark("mmlu", tmp_path, split="train")


def test_a_line_without_end_is_refused_before_it_fills_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("routellm_core.data.files.MAX_RECORD_CHARS", 1000)
    (tmp_path / "long.jsonl").write_text('{"prompt": "' + "a" * 5000)
    with pytest.raises(DataError, match="line 1: longer than 1,000 bytes"):
        load_outcomes(tmp_path / "long.jsonl")


def test_published_results_are_the_papers():
    assert set(PUBLISHED) == set(BENCHMARKS)
    # Spot values of the paper's tables 1, 2 and 3
    assert PUBLISHED["mt-bench"]["mf, Arena + judge"] == (0.1340, 0.3131, 0.802)
    assert PUBLISHED["mmlu"]["sw_ranking, Arena + gold"] == (0.3540, 0.7155, 0.603)
    assert PUBLISHED["gsm8k"]["causal_llm, Arena + judge"] == (0.3364, 0.6326, 0.622)
    # the paper's own cost-saving ratios: random's calls over those of its best router
    best = PUBLISHED["mt-bench"]["mf, Arena + judge"]
    random = PUBLISHED["mt-bench"]["random"]
    assert random[0] / best[0] == pytest.approx(3.66, abs=0.005)
    assert random[1] / best[1] == pytest.approx(2.49, abs=0.005)
