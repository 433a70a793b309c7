"""Results as sections of `RESULTS.md`: a benchmark replaces its own section and leaves the others."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).with_name("RESULTS.md")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def record(title: str, body: str) -> None:
    """Write a section, with date, commit and machine, in place of the one of the same title."""
    where = f"{date.today().isoformat()}, commit {COMMIT}, {_machine()}."
    section = f"## {title}\n{where}\n\n{body.strip()}\n"
    old = RESULTS.read_text() if RESULTS.exists() else "# Results\n"
    head, *sections = old.split("\n## ")
    kept = [f"## {s.strip()}\n" for s in sections if not s.startswith(title + "\n")]
    RESULTS.write_text("\n".join([head.strip() + "\n", *sorted([*kept, section])]))


def _commit() -> str:
    def git(*args: str) -> str:
        return subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    changed = bool(git("status", "--porcelain", "--untracked-files=no", "--", "client", "service", "worker"))
    return git("rev-parse", "--short", "HEAD") + (" with uncommitted changes" if changed else "")


def _machine() -> str:
    return f"{torch.get_num_threads()} CPU threads, {platform.machine()}, torch {torch.__version__}"


COMMIT = _commit()
"""The code that is measured: read at the start, as it may change while a long benchmark runs."""
