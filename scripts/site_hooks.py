"""Hooks of the docs site (mkdocs.yml): what its pages need that neither Markdown nor the theme has.

The pages are read in a checkout as well, so they link to files outside of docs/; and the theme leaves out some names
and roles that screen readers and keyboards need.
"""

from __future__ import annotations

import re
from typing import Any

_OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./(?!\w+\.md)[^)]*\)")
_NAMES = {
    '<div class="md-search" data-md-component="search" role="dialog">': 'aria-label="Search"',
    '<input class="md-toggle" data-md-toggle="drawer"': 'aria-label="Navigation"',
    '<input class="md-toggle" data-md-toggle="search"': 'aria-label="Search"',
}


def on_config(config: Any) -> None:
    """Leave out the page for missing pages, whose links need the address of the site."""
    config.theme.static_templates.discard("404.html")


def on_page_markdown(markdown: str, page: Any, **kwargs: Any) -> str:
    """Keep only the words of a link that leads out of docs/, where the site has nothing to show."""
    return markdown if "/" in page.file.src_uri else _OUTSIDE.sub(r"\1", markdown)


def on_post_page(output: str, **kwargs: Any) -> str:
    """Name the theme's controls, let the keyboard scroll code, and drop headings and landmarks that name nothing."""
    for tag, attribute in _NAMES.items():
        output = output.replace(tag, f"{tag.removesuffix('>')} {attribute}{'>' * tag.endswith('>')}")
    output = re.sub(r"(<pre[^>]*>(?:<span></span>)?)<code>", r'\1<code tabindex="0">', output)
    output = re.sub(r'<nav class="md-nav" aria-label="[^"]*">', '<nav class="md-nav" role="none">', output)
    output = re.sub(r"<th([^>]*)></th>", r"<td\1></td>", output)
    return output.replace("::</p>", ":</p>")  # a docstring's colons before a block
