"""Make the pictures of the docs anew: docs/assets/{cost_quality.svg,terminal_route.svg,report.png}.

    python scripts/docs_figures.py [--data FOLDER]

The chart of cost against quality is drawn from the tables in docs/evaluation.md; the terminal shows what the command
prints. The screen of the report needs Chromium and the published benchmarks in FOLDER; without either it
is left as it is.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from html import escape
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
ASSETS = ROOT / "docs" / "assets"
TITLE = "### MMLU test"
SHOWN = {  # rows of the table -> name in the chart, class of its colour
    "mf_vote (bundled)": ("the bundled router", "a"),
    "prompt length": ("by length: the longest prompts to strong", "b"),
}
CLI = [sys.executable, "-c", "import sys; sys.argv[0] = 'routellm'; from routellm_core.cli import main; main()"]
COMMAND = ["hi", "Thanks, that helped!", "Prove that the square root of 2 is irrational."]

_CSS = """<style>
svg{font:14px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
.bg{fill:#fff}.t{fill:#1b1f24}.s{fill:#57606a}.r{stroke:#d0d7de}.m{stroke:#57606a;stroke-dasharray:6 4}
.a{fill:#0969a8;stroke:#0969a8}.b{fill:#b4520a;stroke:#b4520a}text.a,text.b{stroke:none}
@media(prefers-color-scheme:dark){.bg{fill:#0d1117}.t{fill:#e6edf3}.s{fill:#9aa4af}.r{stroke:#30363d}
.m{stroke:#9aa4af}.a{fill:#58a6e8;stroke:#58a6e8}.b{fill:#e8925a;stroke:#e8925a}}
</style>"""


class Point(NamedTuple):
    """The share of strong calls, in %, that recovers `quality` % of the gap, with its interval."""

    quality: float
    share: float
    low: float
    high: float


def points_of(page: str, router: str) -> list[Point]:
    """CPT(50%) and CPT(80%) of one router, from the first table below the heading of MMLU."""
    section = page[page.index(TITLE) :]
    row = next(line for line in section.splitlines() if line.startswith(f"| {router} |"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    found = []
    for quality, cell in ((50.0, cells[2]), (80.0, cells[3])):
        share, low, high = (float(number) for number in re.findall(r"([\d.]+)%", cell))
        found.append(Point(quality, share, low, high))
    return found


def cost_quality(page: str) -> str:
    """The chart as an SVG that reads on white and on black."""

    def x(share: float) -> float:
        return 64 + 5.6 * share

    def y(quality: float) -> float:
        return 330 - 2.9 * quality

    out = ['<rect class="bg" width="720" height="400" rx="8"/>']
    for tick in (0, 20, 40, 60, 80, 100):
        out.append(f'<path class="r" d="M{x(tick):.0f},330V40M64,{y(tick):.0f}H624"/>')
        out.append(f'<text class="s" x="{x(tick):.0f}" y="350" text-anchor="middle">{tick} %</text>')
        out.append(f'<text class="s" x="56" y="{y(tick) + 5:.0f}" text-anchor="end">{tick} %</text>')
    out.append('<text class="t" x="344" y="376" text-anchor="middle">cost: share of calls to the strong model</text>')
    out.append('<text class="t" x="20" y="26">quality: share of the gap between weak and strong recovered</text>')
    out.append(f'<path class="m" d="M{x(0):.0f},{y(0):.0f}L{x(100):.0f},{y(100):.0f}"/>')
    out.append(f'<text class="s" x="{x(62):.0f}" y="{y(52):.0f}">a random mix</text>')
    for number, (router, (name, color)) in enumerate(SHOWN.items()):
        points = points_of(page, router)
        line = " ".join(f"{x(p.share):.1f},{y(p.quality):.1f}" for p in points)
        out.append(
            f'<polyline class="{color}" style="fill:none" stroke-width="2" '
            f'points="{x(0):.1f},{y(0):.1f} {line} {x(100):.1f},{y(100):.1f}"/>'
        )
        for p in points:
            at = y(p.quality)
            low, high = f"{x(p.low):.1f}", f"{x(p.high):.1f}"
            ends = f"M{low},{at - 5:.1f}v10M{high},{at - 5:.1f}v10"
            out.append(f'<path class="{color}" stroke-width="2" d="M{low},{at:.1f}H{high}{ends}"/>')
            out.append(f'<circle class="{color}" r="5" cx="{x(p.share):.1f}" cy="{at:.1f}"/>')
        out.append(f'<circle class="{color}" r="5" cx="{x(44):.0f}" cy="{y(17 - 9 * number) - 5:.0f}"/>')
        out.append(f'<text class="t" x="{x(46):.0f}" y="{y(17 - 9 * number):.0f}">{escape(name)}</text>')
    label = "Cost against quality on MMLU: " + "; ".join(
        f"{name} recovers {p.quality:.0f} % of the gap with {p.share:g} % strong calls"
        for router, (name, _) in SHOWN.items()
        for p in points_of(page, router)
    )
    body = "\n".join(out)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 400" role="img" aria-label="{escape(label)}">\n'
        f"{_CSS}\n{body}\n</svg>\n"
    )


def terminal(command: str, output: str) -> str:
    """A terminal as an SVG: its own colours, so that it reads on any page."""
    lines = [f"$ {command}", *output.rstrip().splitlines()]
    width, height = 9 * max(map(len, lines)) + 40, 22 * len(lines) + 60
    shown = "\n".join(
        f'<text x="20" y="{58 + 22 * i}" class="{"" if i else "typed"}" xml:space="preserve">{escape(line)}</text>'
        for i, line in enumerate(lines)
    )
    dots = "".join(f'<circle cx="{22 + 18 * i}" cy="20" r="5" fill="#57606a"/>' for i in range(3))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"'
        f' aria-label="{escape(command)}">\n'
        "<style>text{font:15px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;fill:#e6edf3}"
        "text.typed{fill:#8fb4ff}</style>\n"
        f'<rect width="{width}" height="{height}" rx="8" fill="#0d1117"/>{dots}\n{shown}\n</svg>\n'
    )


def routed(prompts: list[str]) -> tuple[str, str]:
    """The command that routes the prompts, and what it prints in 100 columns."""
    arguments = ["route", *prompts, "--strong-fraction", "0.3"]
    done = subprocess.run(
        [*CLI, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={"COLUMNS": "100", "PATH": "", "PYTHONPATH": f"{ROOT / 'core'}"},
    )
    words = " ".join(f'"{word}"' if " " in word else word for word in arguments)
    return f"routellm {words}", done.stdout


def screenshot(page: Path, picture: Path, *, height: int) -> None:
    """What Chromium shows of a page, as a PNG."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        print(f"{picture.name}: not made anew, there is no Chromium here")
        return
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size=820,{height}"]
    subprocess.run([chromium, *options, f"--screenshot={picture}", page.as_uri()], check=True, capture_output=True)
    print(picture.relative_to(ROOT))


def main() -> None:
    """Write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, help="folder with the published benchmarks, for the evaluation's screen")
    data = parser.parse_args().data
    ASSETS.mkdir(exist_ok=True)
    page = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    (ASSETS / "cost_quality.svg").write_text(cost_quality(page), encoding="utf-8")
    (ASSETS / "terminal_route.svg").write_text(terminal(*routed(COMMAND)), encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        if data is not None:
            (Path(folder) / "benchmarks").symlink_to(data.resolve())  # the page shows the command: no path of a machine
            evaluate = ["evaluate", "-r", "mf_vote", "--benchmark", "mmlu", "--data", "benchmarks", "--out", "report"]
            subprocess.run([*CLI, *evaluate], check=True, cwd=folder, stdout=subprocess.DEVNULL)
            screenshot(Path(folder) / "report" / "report.html", ASSETS / "report.png", height=1560)


if __name__ == "__main__":
    main()
