"""Check the built docs site: every internal link and anchor, nothing loaded from another host, a search index.

    python scripts/check_site.py out/site

Links that a reader clicks may lead elsewhere; what a page loads by itself (scripts, styles, images, fonts) may not.
"""

from __future__ import annotations

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_LOADED = {
    ("script", "src"),
    ("img", "src"),
    ("iframe", "src"),
    ("source", "src"),
    ("link", "href"),
    ("object", "data"),
}
_NOT_LOADED = {"canonical", "next", "prev", "alternate"}  # what a `link` with this rel names is not fetched
_CSS_URL = re.compile(r"url\(\s*['\"]?([^'\")]+)|@import\s+['\"]([^'\"]+)")


class Page(HTMLParser):
    """What one page links to, what it loads, and the anchors that it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self._in_style = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect the attributes that name an address or an anchor."""
        values = {name: value or "" for name, value in attrs}
        self.anchors.update(values[name] for name in ("id", "name") if name in values)
        self.loaded += _css_urls(values.get("style", ""))
        self._in_style = tag == "style"
        for name, value in values.items():
            if name == "srcset":
                self.loaded += [part.split()[0] for part in value.split(",")]
            elif (tag, name) in _LOADED and not (tag == "link" and values.get("rel") in _NOT_LOADED):
                self.loaded.append(value)
            elif (tag, name) == ("a", "href"):
                self.links.append(value)

    def handle_endtag(self, tag: str) -> None:
        """Leave a style element."""
        self._in_style = False

    def handle_data(self, data: str) -> None:
        """Collect what inline styles load."""
        if self._in_style:
            self.loaded += _css_urls(data)


def _css_urls(css: str) -> list[str]:
    return [url or imported for url, imported in _CSS_URL.findall(css) if not url.startswith(("data:", "#"))]


def check(site: Path) -> list[str]:
    """The faults of a built site, one a line."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    faults = [] if pages else [f"{site}: no page"]
    for path, page in pages.items():
        where = path.relative_to(site)
        for address in [*page.links, *page.loaded]:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                if address in page.loaded and parts.scheme != "data":
                    faults.append(f"{where}: loads {address}")
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path.resolve()
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file() or not target.is_relative_to(site):
                faults.append(f"{where}: {address} leads nowhere")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
                faults.append(f"{where}: {address} has no such anchor")
    for path in sorted(site.rglob("*.css")):
        for address in _css_urls(path.read_text(encoding="utf-8")):
            if urlsplit(address).netloc:
                faults.append(f"{path.relative_to(site)}: loads {address}")
            elif not (path.parent / urlsplit(address).path).is_file():
                faults.append(f"{path.relative_to(site)}: {address} leads nowhere")
    return faults + _search_faults(site, pages)


def _search_faults(site: Path, pages: dict[Path, Page]) -> list[str]:
    """Pages that the search, which reads this one file, would never find."""
    index = site / "search" / "search_index.js"
    if not index.is_file():
        return [f"{index.name}: there is no search index that works without a server"]
    entries = json.loads(index.read_text(encoding="utf-8").removeprefix("var __index = "))["docs"]
    found = {entry["location"].partition("#")[0] or "index.html" for entry in entries if entry["text"]}
    known = {path.relative_to(site).as_posix() for path in pages if path.name != "404.html"}
    return [f"{name}: not in the search index" for name in sorted(known - found)]


def main() -> None:
    """Print the faults; exit with 1 where there are any."""
    site = Path(sys.argv[1]).resolve()
    faults = check(site)
    print("\n".join(faults) or f"{site.name}: links, anchors and search index are whole; nothing loads from elsewhere")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
