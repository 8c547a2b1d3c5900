"""Try every `pip install` line of the docs and of the errors in a fresh environment.

    python scripts/install_lines.py [--list] [--constraint FILE] [WORD ...]

With words, only the lines that hold one of them. A line that installs this package is tried as it stands, in the
checkout. Then the package and what its extras bring are imported, and `pip check` looks for conflicts. The errors' own
line, `pip install 'routellm-adapters[EXTRA]'`, is tried where the package is installed without extras: pip takes the
extra's requirements from the installed package, and asks no index for it.
"""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHELL = re.compile(r"&&|\||;|\\$|#")  # what ends the arguments of pip
LOADS = {
    "langchain": "langchain_routellm",
    "agents": "langchain_routellm, langchain.agents",
    "llamaindex": "llamaindex_routellm",
    "openai": "openai",
    "bert": "torch, transformers",
    "train": "torch, transformers, peft, accelerate",
    "hub": "huggingface_hub",
    "parquet": "pyarrow.parquet",
    "milvus": "pymilvus, milvus_lite",
    "log": "sqlalchemy",
    "log-postgres": "sqlalchemy, psycopg",
    "report": "jinja2",
    "cli": "typer, rich, routellm_core.cli",
    "plot": "matplotlib",
    "schema": "jsonschema",
    "serve": "aiohttp, uvicorn, prometheus_client, routellm_core.serve",
}


def extras() -> list[str]:
    """The extras of the package that users install: not those of its own development."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [name for name in project["optional-dependencies"] if name not in ("dev", "docs", "all")]


def documented() -> dict[tuple[str, ...], list[str]]:
    """The arguments of each distinct line that the pages show, and the pages."""
    lines: dict[tuple[str, ...], list[str]] = {}
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    for page in pages:
        for shown in re.findall(r"pip install ([^`\n]*)", page.read_text(encoding="utf-8")):
            arguments = tuple(shlex.split(SHELL.split(shown)[0]))
            if not any(argument.startswith("-") for argument in arguments):  # the tests' environment, which CI makes
                lines.setdefault(arguments, []).append(str(page.relative_to(ROOT)))
    return lines


def named_extras(arguments: tuple[str, ...]) -> list[str]:
    """The extras of this package among the arguments of a line."""
    return [name for argument in arguments for name in re.findall(r"[\w-]+", argument.partition("[")[2])]


def _run(*command: str | Path) -> str:
    done = subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError((done.stdout + done.stderr).strip()[-1500:])
    return done.stdout


def attempt(arguments: tuple[str, ...], modules: str, first: tuple[str, ...], constraint: str | None) -> None:
    """Install `first` and then the line in a fresh environment, import the modules, and check for conflicts.

    Raises:
        RuntimeError: A command fails; the message has the end of its output.
    """
    with tempfile.TemporaryDirectory() as folder:
        python = Path(folder) / "v" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
        _run(sys.executable, "-m", "venv", python.parent.parent)
        held = ("-c", constraint) if constraint else ()
        for line in filter(None, (first, arguments)):
            _run(python, "-m", "pip", "install", "-q", *held, *line)
        _run(python, "-m", "pip", "check")
        _run(python, "-I", "-c", f"import {modules}")


Try = tuple[str, tuple[str, ...], str, tuple[str, ...]]


def tries() -> list[Try]:
    """What to try: a title, the arguments, the modules to import, and what is installed before."""
    planned: list[Try] = []
    for arguments, pages in documented().items():
        own = any(argument.startswith(".") for argument in arguments)
        modules = ", ".join(
            ["routellm_core"] * own + [LOADS[name] for name in named_extras(arguments) if name in LOADS]
        )
        title = f"pip install {shlex.join(arguments)}  ({', '.join(pages)})"
        planned.append((title, arguments, modules or "sys", ()))
    for name in extras():
        line = (f"routellm-adapters[{name}]",)
        planned.append((f"pip install {shlex.join(line)}  (errors)", line, f"routellm_core, {LOADS[name]}", (".",)))
    return planned


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("words", nargs="*", help="only the lines that hold one of these words")
    parser.add_argument("--list", action="store_true", help="show the lines and install nothing")
    parser.add_argument(
        "--constraint", help="a file for pip's -c, such as constraints.txt, which takes torch's CPU build"
    )
    args = parser.parse_args()
    failed = 0
    for title, arguments, modules, first in tries():
        if args.words and not any(word in title for word in args.words):
            continue
        if args.list:
            print(title)
            continue
        began = time.monotonic()
        try:
            attempt(arguments, modules, first, args.constraint)
        except RuntimeError as exc:
            failed += 1
            print(f"FAILS  {title}\n{exc}", flush=True)
        else:
            print(f"ok {time.monotonic() - began:5.1f} s  {title}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
