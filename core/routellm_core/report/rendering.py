"""The template files, rendered: values are escaped for HTML or Markdown, by the kind of the template."""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from routellm_core.errors import MissingExtraError
from routellm_core.report.escaping import code, markdown, pipe_table, printable

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).with_name("templates")


def check_templates() -> None:
    """Raise a `MissingExtraError` unless templates can be rendered; work that ends in a report asks this first."""
    try:
        importlib.import_module("jinja2")
    except ImportError:
        raise MissingExtraError("Writing a report or a model card", "report") from None


def render(template: str, *, folder: Path = TEMPLATES, **values: object) -> str:
    """Render a template file.

    Every value that a template prints is escaped: by HTML's rules in ``*.html.jinja``, by Markdown's in
    ``*.md.jinja``. Characters that do not print, such as those that command a terminal, become visible escapes in both.

    Args:
        template: Name of the file.
        folder: Where it is, with the templates that it extends or includes.
        **values: What the template prints; a name that is missing is an error.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    check_templates()
    environment = _html(folder) if template.endswith(".html.jinja") else _markdown(folder)
    return environment.get_template(template).render(values)


@cache
def _html(folder: Path) -> Environment:
    return _environment(folder, html=True)


@cache
def _markdown(folder: Path) -> Environment:
    return _environment(folder, html=False)


def _environment(folder: Path, *, html: bool) -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=html,
        finalize=_shown if html else markdown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"code": code}
    environment.globals |= {"pipe_table": pipe_table}
    return environment


def _shown(value: object) -> object:
    """A value as HTML shows it, before it is escaped; what a macro returned has been through this already."""
    return printable(value) if type(value) is str else value
