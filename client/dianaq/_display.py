"""How a job looks while it runs: a bar for what goes on, a line for what is done."""

from __future__ import annotations

import sys
import warnings
from typing import Any

from dianaq.schemas.events import Event, LogBody, MetricsBody, ProgressBody, StageBody, StateBody
from dianaq.schemas.figures import SHARES, parted

_NAMES = {
    "accuracy_val": "val",
    "accuracy_test": "test",
    "auc_val": "val AUC",
    "auc_test": "test AUC",
    "mse_val": "val MSE",
    "mse_test": "test MSE",
    "agreement_val": "val agreement",
    "agreement_test": "test agreement",
    "sqnr_db_val": "val SQNR (dB)",
    "sqnr_db_test": "test SQNR (dB)",
    "loss": "loss",
}
"""Figures that are shown, and how; the report has all of them."""

_BAR_FORMAT = "{desc} |{bar:20}| {n_fmt}/{total_fmt} {elapsed}{postfix}"
"""No rates: events come in bursts, and what they would say about the training is wrong."""


def is_watched() -> bool:
    """Whether a bar can be drawn: in a terminal or a notebook."""
    return "ipykernel" in sys.modules or sys.stderr.isatty()


def progress_bar(**options: Any) -> Any:
    """A tqdm bar for terminals and notebooks; None where nobody would see it."""
    if not is_watched():
        return None
    with warnings.catch_warnings():  # about widgets that a notebook may lack; a plain bar follows then
        warnings.simplefilter("ignore")
        from tqdm.auto import tqdm

        return tqdm(leave=False, dynamic_ncols=True, **options)


def figures(values: dict[str, float]) -> str:
    """Accuracies in percent, areas, errors and losses: those that a reader looks for."""
    shown = []
    for key, name in _NAMES.items():
        if key in values:
            figure = f"{values[key]:7.2%}" if parted(key)[0] in SHARES else f"{values[key]:#.4g}"
            shown.append(f"{name} {figure}")
    return "   ".join(shown)


class Display:
    """Shows events as they come. Lines go to standard output, the bar to standard error."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: tuple[str, str] | None = None
        self._measured: dict[str, dict[str, float]] = {}

    def show(self, event: Event) -> None:
        """Show one event."""
        body = event.body
        if isinstance(body, ProgressBody):
            self._progress(body)
        elif isinstance(body, MetricsBody):
            self._metrics(body)
        elif isinstance(body, StageBody) and body.status == "finished":
            measured = figures(self._measured.pop(body.stage, {}))
            self._line(f"  {body.stage:<16}{body.seconds or 0.0:8.1f} s   {measured}".rstrip())
        elif isinstance(body, LogBody) and body.level == "warning":
            self._line(f"  warning: {body.message}")
        elif isinstance(body, StateBody):
            self._state(body, event.attempt)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = self._task = None

    def _progress(self, body: ProgressBody) -> None:
        if self._task != (body.stage, body.label):
            if self._bar is None:
                self._bar = progress_bar(total=body.total, bar_format=_BAR_FORMAT)
            else:
                self._bar.total = body.total
            if self._bar is not None:
                self._bar.set_description_str(f"  {body.stage:<16}{body.label:<12}", refresh=False)
            self._task = (body.stage, body.label)
        if self._bar is not None:
            self._bar.n = body.step
            self._bar.refresh()

    def _metrics(self, body: MetricsBody) -> None:
        if body.epoch is None:
            self._measured.setdefault(body.stage, {}).update(body.values)
        elif self._bar is not None:
            self._bar.set_postfix_str(figures(body.values))

    def _state(self, body: StateBody, attempt: int) -> None:
        if body.state == "running" and attempt > 1:
            self._line(f"  attempt {attempt}")
        elif body.state == "cancelling":
            self._line("  cancelling")

    def _line(self, line: str) -> None:
        self.close()
        print(line, flush=True)
