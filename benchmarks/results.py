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


GPU = ", GPU"
"""The end of titles of sections about what a GPU did."""


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def titled(title: str, device: torch.device) -> str:
    """A section's title: what a GPU does has a section of its own."""
    return f"{title}{GPU}" if device.type == "cuda" else title


def record(title: str, body: str) -> None:
    """Write a section, with date, commit and machine, in place of the one of the same title."""
    where = f"{date.today().isoformat()}, commit {COMMIT}, {_machine(title)}."
    _replace(title, f"## {title}\n{where}\n\n{body.strip()}\n")


def _replace(title: str, section: str) -> None:
    old = RESULTS.read_text() if RESULTS.exists() else "# Results\n"
    head, *sections = old.split("\n## ")
    kept = [f"## {s.strip()}\n" for s in sections if not s.startswith(title + "\n")]
    RESULTS.write_text("\n".join([head.strip() + "\n", *sorted([*kept, section])]))


def record_rows(title: str, note: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write rows into the table of a section, in place of those of the same first two cells; others stay.

    Long jobs are measured one by one: each row ends with the date and the commit that it was measured at.
    """
    columns = [*header, "measured"]
    kept = _rows(title, columns)
    for row in rows:
        kept[(row[0], row[1])] = [*row, f"{date.today().isoformat()}, {COMMIT}"]
    section = f"## {title}\n{_machine(title)}. {note}\n\n{table(columns, [kept[key] for key in sorted(kept)])}\n"
    _replace(title, section)


def _rows(title: str, columns: Sequence[str]) -> dict[tuple[str, str], list[str]]:
    """The rows of a section's table by their first two cells; none if its columns are others."""
    old = RESULTS.read_text() if RESULTS.exists() else ""
    section = next((s for s in old.split("\n## ")[1:] if s.startswith(title + "\n")), "")
    lines = [[c.strip() for c in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("|")]
    if not lines or lines[0] != list(columns):
        return {}
    return {(cells[0], cells[1]): cells for cells in lines[2:]}


def _commit() -> str:
    def git(*args: str) -> str:
        return subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    changed = bool(git("status", "--porcelain", "--untracked-files=no", "--", "client", "service", "worker"))
    return git("rev-parse", "--short", "HEAD") + (" with uncommitted changes" if changed else "")


def _machine(title: str) -> str:
    gpu = f"{torch.cuda.get_device_name()}, " if title.endswith(GPU) else ""
    return f"{gpu}{torch.get_num_threads()} CPU threads, {platform.machine()}, torch {torch.__version__}"


COMMIT = _commit()
"""The code that is measured: read at the start, as it may change while a long benchmark runs."""
