"""The model card: complete, and safe whatever models, sources and settings are called."""

import json
import re
import sys
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from routellm_core import ConfigurationError, MissingExtraError
from routellm_core.data.records import Outcome
from routellm_core.evaluation import evaluate_router
from routellm_core.report.escaping import printable
from routellm_core.report.model_card import measured_on, metrics_table, model_card
from routellm_core.training import train_embedding_router
from routellm_core.training.summary import check_output

renderer = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
EVIL = "<script>alert(1)</script> | `x` [y](http://z) # \n## z\x1b[2J\N{RIGHT-TO-LEFT OVERRIDE}"


def metrics(name="big", count=40, **changes):
    rates = [i / count for i in range(count)]
    strong, weak = [1.0] * count, [float(i < count / 2) for i in range(count)]
    found = evaluate_router(rates, ["p" * (1 + i % 7) for i in range(count)], strong, weak, draws=20).to_dict()
    return {
        "router": "mf",
        "strong": name,
        "weak": "small",
        "rows": {"train": 1234, "held_out": count},
        "sources": {"arena": 1000, "judge": 234},
        "settings": {"seed": 0, "embedder": "StaticEmbedder", "base": None},
        "notes": [],
        "folds": 0,
        "held_out": found,
        "bundled_default": found["baselines"]["random"],
        **changes,
    }


def test_the_card_says_what_it_is_what_it_learned_from_and_how_good_it_is():
    card = model_card(metrics())
    assert "# RouteLLM router `mf`: big or small" in card
    assert "1,234 rows for training, 0 for early stopping, 40 held out" in card
    assert "Sources: arena 1,000, judge 234." in card
    assert '| embedder | "StaticEmbedder" |' in card
    assert "| base | null |" in card
    assert "Measured on 40 held-out prompts. Strong alone scores 1, weak alone 0.5." in card
    for row in metrics_table(metrics()):
        assert f"| {' | '.join(row)} |" in card
    assert [row[0] for row in metrics_table(metrics())] == [
        "held-out prompts", "this router", "bundled default", "prompt length", "random", "oracle"
    ]  # fmt: skip
    assert json.loads(json.dumps(metrics())) == metrics()


def test_the_card_of_a_cross_validated_router_says_so():
    found = metrics(folds=5)
    assert metrics_table(found)[0][0] == "5-fold cross-validated"
    assert "each scored by a router that was not trained on it (5-fold cross-validation)" in model_card(found)


def test_the_card_without_metrics_says_so():
    found = metrics(held_out=None, bundled_default=None)
    assert metrics_table(found) == []
    assert measured_on(found) == ""
    assert "no prompts were held out" in model_card(found)


def test_what_is_undefined_is_a_dash():
    equal = evaluate_router([0.1, 0.9], ["a", "b"], [1.0, 1.0], [1.0, 1.0], draws=20).to_dict()
    found = metrics(held_out=equal, bundled_default=None)
    assert metrics_table(found)[1] == ["this router", "–", "–", "–"]
    assert "nan" not in model_card(found).lower()
    assert all(f"- {note}" in model_card(found) for note in equal["notes"])


def outline(card):
    """The structure that a reader's renderer makes of a card, without its words."""
    tokens = renderer.parse(card)
    inline = [child.type for token in tokens for child in token.children or () if child.type != "code_inline"]
    return [token.type for token in tokens], [kind for kind in inline if kind not in ("text", "softbreak")]


def test_no_name_changes_the_structure_of_the_card():
    plain = metrics()
    evil = metrics(
        EVIL,
        router=EVIL,
        weak=EVIL + "2",
        sources={EVIL: 1000, EVIL + "2": 234},
        settings={EVIL: 0, "path": EVIL, "deep": {EVIL: [EVIL]}},
        held_out={**plain["held_out"], "notes": [f"A note on {EVIL}."]},
    )
    plain["held_out"]["notes"] = ["A note."]
    card = model_card(evil)
    assert outline(card) == outline(model_card(plain))
    assert all(line.isprintable() for line in card.split("\n"))
    rendered = "".join(child.content for token in renderer.parse(card) for child in token.children or ())
    assert rendered.count(printable(EVIL)) >= 8
    assert "<script" not in renderer.render(card)


def test_without_jinja2_training_stops_before_it_starts(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingExtraError, match=r"routellm-adapters\[report\]"):
        model_card(metrics())
    rows = [Outcome(prompt=f"p{i}", scores={"big": 1.0, "small": float(i % 2)}) for i in range(20)]
    with pytest.raises(MissingExtraError, match=r"routellm-adapters\[report\]"):
        train_embedding_router("mf", rows, tmp_path / "r", strong="big", weak="small")
    assert not (tmp_path / "r").exists()


def test_the_place_to_save_to_is_checked_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="is a file"):
        check_output(tmp_path / "file", overwrite=True)


def test_the_bundled_routers_card_is_what_its_template_says():
    root = Path(__file__).resolve().parents[3]
    template = (root / "scripts" / "default_router_card.md.jinja").read_text(encoding="utf-8")
    card = (root / "core" / "routellm_core" / "pretrained" / "mf_vote" / "README.md").read_text(encoding="utf-8")
    words = [part.strip() for part in re.split(r"\{\{.*?\}\}|\{%.*?%\}", template)]
    places = [card.find(part) for part in words if len(part) > 20]
    assert len(places) >= 20
    assert -1 not in places
    assert places == sorted(places)
    assert "{" not in card
