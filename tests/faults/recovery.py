"""How long the service took to recover: one row per fault of the table in `docs/reliability.md`.

Tests never judge times, they write them down: as lines of JSON into the file that `DIANAQ_RECOVERIES` names.
`python tests/faults/recovery.py` puts them into the page (`make reliability`).
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

FILE = "DIANAQ_RECOVERIES"
PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
DATABASES = ("SQLite", "PostgreSQL")


@dataclass(frozen=True)
class Recovery:
    """One measurement.

    Args:
        fault: what was done.
        effect: what happens then, in a sentence.
        until: what counts as recovered.
    """

    fault: str
    effect: str
    until: str
    database: str
    seconds: float


class Recorder:
    """Takes the times of one test."""

    def __init__(self, database: str) -> None:
        self._database = database

    @contextmanager
    def recovery(self, fault: str, effect: str, until: str) -> Iterator[None]:
        """Time the block, which begins right after the fault and ends with the recovery."""
        start = time.monotonic()
        yield
        row = Recovery(fault, effect, until, self._database, time.monotonic() - start)
        if name := os.environ.get(FILE):
            with Path(name).open("a") as file:
                file.write(json.dumps(asdict(row)) + "\n")


def table(lines: list[str]) -> str:
    """The measurements as a Markdown table: a row per fault in the order of the tests, a column per database."""
    seconds: dict[tuple[str, str, str], dict[str, float]] = {}
    for line in lines:
        row = Recovery(**json.loads(line))
        seconds.setdefault((row.fault, row.effect, row.until), {})[row.database] = row.seconds
    out = [f"| fault | what happens | measured until | {' | '.join(DATABASES)} |", "| --- | --- | --- | --- | --- |"]
    for (fault, effect, until), found in seconds.items():
        times = (f"{found[name]:.1f} s" if name in found else "-" for name in DATABASES)
        out.append(f"| {fault} | {effect} | {until} | {' | '.join(times)} |")
    return "\n".join(out)


def write(page: Path, measured: str) -> None:
    """Replace what stands between the two marks of the page."""
    head, _, rest = page.read_text().partition(BEGIN)
    _, _, tail = rest.partition(END)
    page.write_text(f"{head}{BEGIN}\n{measured}\n{END}{tail}")


if __name__ == "__main__":
    write(PAGE, table(Path(sys.argv[1]).read_text().splitlines()))
