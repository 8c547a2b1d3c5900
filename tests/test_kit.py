"""What surrounds the code: install lines, the version, workflows and the Makefile name things that exist."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

import routellm_core
from tests.support.examples import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import install_lines

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = set(PROJECT["optional-dependencies"])
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "deploy" / "Dockerfile"])
SOURCES = sorted(
    path
    for package in ("core/routellm_core", "langchain_routellm", "llamaindex_routellm")
    for path in (ROOT / package).rglob("*.py")
)
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def extras_installed(text: str) -> Iterator[str]:
    """Extras of this package in the install lines of a text."""
    for line in re.findall(r"pip install ([^`\n]*)", text):
        for names in re.findall(r"(?:\.|routellm-adapters|\.whl\)?\"?)\[([\w,-]+)\]", line):
            yield from names.split(",")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_install_lines_name_extras_and_work_from_a_checkout(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert set(extras_installed(text)) <= EXTRAS
    # the package is on no index: whoever has the repository only must be able to follow every page
    assert not re.search(r"pip install [^`\n]*routellm-adapters", text)


def test_every_install_line_and_every_extra_is_tried() -> None:
    titles = [title for title, *_ in install_lines.tries()]
    tried = " ".join(titles)
    for page in (path for path in PAGES if path.suffix == ".md"):
        for line in re.findall(r"pip install ('?\.[^`\n ]*)", page.read_text(encoding="utf-8")):
            assert f"pip install {line}" in tried, page
    assert set(install_lines.LOADS) == EXTRAS - {"all", "dev", "docs"}
    assert all(f"'routellm-adapters[{name}]'" in tried for name in install_lines.LOADS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "modules", "message"),
    [
        (("--no-index", "no-such-package"), "sys", "no-such-package"),
        ((), "no_such_module", "No module named 'no_such_module'"),
    ],
)
def test_an_install_line_that_does_not_work_fails(line: tuple[str, ...], modules: str, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        install_lines.attempt(line, modules, (), None)


def test_errors_name_extras_that_exist() -> None:
    named = set()
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        named |= set(re.findall(r"MissingExtraError\([^()]*\"([\w-]+)\"\)", text))
        named |= set(extras_installed(text)) - {"{extra}"}
    assert {"cli", "log", "train"} <= named <= EXTRAS


def test_the_version_is_in_one_place() -> None:
    assert version("routellm-adapters") == routellm_core.__version__
    assert "version" in PROJECT["dynamic"]
    number = re.escape(routellm_core.__version__)
    for name in ("pyproject.toml", "CITATION.cff"):
        assert not re.search(rf"version\W+{number}\b", (ROOT / name).read_text(encoding="utf-8"))


def test_classifiers_are_what_the_workflow_tests() -> None:
    ci = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    tested = ci["jobs"]["tests"]["strategy"]["matrix"]
    claimed = [name.rpartition(" :: ")[2] for name in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", name)]
    assert claimed == tested["python"]
    assert {name.split("-")[0] for name in tested["os"]} == {"ubuntu", "macos", "windows"}


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_run_what_is_there(workflow: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M))
    jobs = yaml.safe_load(workflow.read_text(encoding="utf-8"))["jobs"]
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert commands
    for command in commands:
        for path in re.findall(r"(?<![\w/])(\.ci/\w+(?:\.py)?|constraints\.txt|CHANGELOG\.md)", command):
            assert (ROOT / path).is_file(), path
        for target in re.findall(r"\bmake (\w+)", command):
            assert target in targets
        assert set(extras_installed(command.replace('"', "'"))) <= EXTRAS
    # whatever is not granted is not allowed
    assert yaml.safe_load(workflow.read_text(encoding="utf-8"))["permissions"] == {"contents": "read"}


def test_fragments_of_the_changelog_become_one_bullet_each() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["towncrier"]
    assert not any(config["underlines"])  # below a title of Markdown they are text
    kinds = {kind["directory"] for kind in config["type"]}
    fragments = [path for path in (ROOT / "changelog.d").glob("*.md") if path.name != "README.md"]
    assert fragments or "## [" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    for path in fragments:
        assert path.suffixes[-2][1:] in kinds, path.name
        assert not re.search(r"^\s*[-*#] ", path.read_text(encoding="utf-8"), flags=re.MULTILINE), path.name


def test_the_citation_names_the_paper() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["title"] == PROJECT["name"]
    assert citation["license"] == PROJECT["license"]
    assert citation["references"][0]["identifiers"][0]["value"].removeprefix("arXiv:") in PROJECT["urls"]["Paper"]
