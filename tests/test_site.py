"""The docs site: every page is in its navigation, the examples of its own pages run, its pictures are up to date."""

from __future__ import annotations

import re
import shlex
import sys
from html import escape
from pathlib import Path

import pytest

from routellm_core.cli import build_app
from tests.core.test_cli import _commands
from tests.support.examples import ROOT, run_example
from tests.support.openai_server import ChatReply, OpenAIServer

sys.path.insert(0, str(ROOT / "scripts"))
import docs_figures
from check_site import check

DOCS = ROOT / "docs"
NAVIGATION = re.search(r"^nav:\n(.*)", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))


def test_every_page_is_in_the_navigation():
    assert NAVIGATION is not None
    assert sorted(re.findall(r": (\S+\.md)$", NAVIGATION[1], re.MULTILINE)) == PAGES


@pytest.mark.parametrize("page", [page for page in PAGES if "```python" in (DOCS / page).read_text(encoding="utf-8")])
def test_a_test_runs_the_examples_of_every_page(page):
    tests = [path for path in (ROOT / "tests").rglob("test_*.py") if path.name != "test_site.py"]
    texts = [path.read_text(encoding="utf-8") for path in tests]
    named = any(page in text or f'"docs" / "{page}"' in text for text in texts)
    assert named or page in RUN_HERE, f"no test runs the examples of docs/{page}; add it to RUN_HERE or give it a test"


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_the_links_of_the_pages_beside_the_docs_lead_to_files(page):
    links = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / page).read_text(encoding="utf-8"))
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{page}" for page in PAGES)])
def test_every_command_and_option_that_a_page_shows_exists(page):
    known = dict(_commands(build_app()))
    text = (ROOT / page).read_text(encoding="utf-8").replace("\\\n", " ")
    for line in re.findall(r"^(?:\$ )?(?:\.venv/bin/)?routellm (.+)$", text, flags=re.MULTILINE):
        words = shlex.split(line, comments=True)
        names = [tuple(words[:count]) for count in (2, 1) if tuple(words[:count]) in known]
        assert names, f"{page}: routellm {line}"
        options = {option for param in known[names[0]].params for option in (*param.opts, *param.secondary_opts)}
        assert {word for word in words if word.startswith("--")} <= options, f"{page}: routellm {line}"


RUN_HERE = ["how_it_works.md", "learning.md", "recipes.md", "start.md"]


def answered(body):
    """What a model would do that is asked for an object, or for anything else."""
    tools = [tool["function"]["name"] for tool in body.get("tools", [])]
    if tools == ["Order"] or "response_format" in body:
        return ChatReply('{"number": 4711}', tool_calls=[("Order", {"number": 4711})] if tools else [])
    return ChatReply(f"said by {body['model']}")


@pytest.mark.parametrize("page", RUN_HERE)
def test_the_examples_run_and_print_what_they_say(page, tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    script = tmp_path / "page.py"
    script.write_text("\n".join(blocks), encoding="utf-8")
    with OpenAIServer() as server:
        server.chat = answered
        addresses = {"OPENAI_BASE_URL": server.base_url, "OPENAI_API_BASE": server.base_url}
        printed = run_example(script, cwd=tmp_path, OPENAI_API_KEY="sk-test", **addresses).splitlines()
    promised = re.findall(r"^print\(.*\)  # (.*)$", "\n".join(blocks), re.MULTILINE)
    assert promised or page == "learning.md"
    assert printed == promised


def test_the_chart_is_drawn_from_the_results():
    page = (DOCS / "evaluation.md").read_text(encoding="utf-8")
    shown = (DOCS / "assets" / "cost_quality.svg").read_text(encoding="utf-8")
    assert shown == docs_figures.cost_quality(page), "run `python scripts/docs_figures.py` and commit the picture"


def test_the_terminal_shows_what_the_command_prints():
    command, output = docs_figures.routed(docs_figures.COMMAND)
    shown = (DOCS / "assets" / "terminal_route.svg").read_text(encoding="utf-8")
    assert escape(command) in shown
    for line in output.splitlines():
        assert escape(line) in shown, "run `python scripts/docs_figures.py` and commit the picture"


SITE = {
    "index.html": '<h1 id="top">Top</h1><a href="more.html#there">x</a><a href="https://example.org/">y</a>',
    "more.html": '<p id="there">There</p><img src="assets/a.svg"><link rel="canonical" href="https://example.org/">',
    "assets/a.svg": "<svg/>",
    "assets/a.css": "p{background:url(a.svg)}",
    "search/search_index.js": (
        'var __index = {"docs": [{"location": "index.html", "text": "a"},'
        ' {"location": "more.html#there", "text": "b"}]}'
    ),
}


def built(folder: Path, **changes: str) -> list[str]:
    for name, text in {**SITE, **changes}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return check(folder.resolve())


def test_a_whole_site_has_no_fault(tmp_path):
    assert built(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("index.html", '<a href="gone.html">x</a>', "index.html: gone.html leads nowhere"),
        ("index.html", '<a href="../outside.html">x</a>', "index.html: ../outside.html leads nowhere"),
        ("index.html", '<a href="more.html#gone">x</a>', "index.html: more.html#gone has no such anchor"),
        ("index.html", '<a href="#gone">x</a>', "index.html: #gone has no such anchor"),
        (
            "index.html",
            '<script src="https://cdn.example/x.js"></script>',
            "index.html: loads https://cdn.example/x.js",
        ),
        ("index.html", '<script src="//cdn.example/x.js"></script>', "index.html: loads //cdn.example/x.js"),
        ("index.html", '<img srcset="https://cdn.example/x.png 2x">', "index.html: loads https://cdn.example/x.png"),
        (
            "index.html",
            "<style>@import 'https://cdn.example/x.css'</style>",
            "index.html: loads https://cdn.example/x.css",
        ),
        ("index.html", '<p style="background:url(https://e.example/x)">', "index.html: loads https://e.example/x"),
        ("assets/a.css", "@font-face{src:url('https://f.example/f')}", "assets/a.css: loads https://f.example/f"),
        ("assets/a.css", "p{background:url(gone.png)}", "assets/a.css: gone.png leads nowhere"),
        ("search/search_index.js", 'var __index = {"docs": []}', "index.html: not in the search index"),
    ],
)
def test_a_fault_of_the_site_is_found(tmp_path, name, text, fault):
    assert fault in built(tmp_path, **{name: text})
