"""The top of the page: whether to deploy, in a sentence and six figures."""

from __future__ import annotations

import math

from dianaq.schemas.figures import FIGURES, SHARES, written
from dianaq.schemas.report import Accuracy, JobReport
from dianaq_quant.bundle.report_html.markup import Content, Markup, element
from dianaq_quant.bundle.report_html.units import MINUS, NONE, si

LEADING = ("top1", "auc", "mse", "sqnr_db")
"""The figure that says most, of those that there are."""


def verdict(report: JobReport) -> Markup:
    """The sentence and the cards."""
    count = len(report.warnings)
    if report.verification is None:
        words = "This network was not verified. Do not deploy it."
    elif count:
        words = (
            f"Verified bit for bit. Read the {f'{count} warnings' if count > 1 else 'warning'} before you deploy it."
        )
    else:
        words = "Verified bit for bit, and nothing stands out: ready to hand to the compilers."
    good = report.verification is not None and not count
    cards = [_accuracy(report), _verified(report), *_costs(report), _warnings(report)]
    return element(
        "div",
        element("p", words, class_="verdict" if good else "verdict warn"),
        element("dl", *cards, class_="cards"),
    )


def leading(report: JobReport) -> tuple[str, Accuracy, Accuracy] | None:
    """The figure that says most, where it was measured first (the float network, mostly) and last."""
    for name in LEADING:
        entries = [entry for entry in report.accuracy if getattr(entry, name) is not None]
        if entries:
            return name, entries[0], entries[-1]
    return None


def change(name: str, before: float, after: float) -> str:
    """How a figure changed: shares in points, errors in percent, an AUC and decibels as they are."""
    if name == "mse":
        return f"{100 * (after / before - 1):+.1f}%".replace("-", MINUS) if before else NONE
    difference = after - before
    if name in SHARES:
        text = f"{100 * difference:+.2f} points"
    else:
        text = f"{difference:+.1f} dB" if name == "sqnr_db" else f"{difference:+.4f}"
    return text.replace("-", MINUS)


def _card(title: str, value: Content, *more: Content) -> Markup:
    return element("div", element("dt", title), element("dd", value), *[element("dd", line) for line in more])


def _accuracy(report: JobReport) -> Markup:
    found = leading(report)
    if found is None:
        return _card("Accuracy", "not measured", "the dataset has no labels for it")
    name, first, last = found
    if name == "sqnr_db":  # of which the float network has the best there is, by definition
        agreed = [] if last.agreement is None else [f"agreement {written('agreement', last.agreement)}"]
        lines = [*agreed, f"on {last.samples:,} samples ({last.split})"]
        return _card("Like the float network", f"{getattr(last, name):.1f} dB", *lines)
    before, after = getattr(first, name), getattr(last, name)
    title = f"{FIGURES[name].capitalize() if name == 'top1' else FIGURES[name]}, {first.stage} → integer"
    lines = [f"{change(name, before, after)}, on {last.samples:,} samples ({last.split})"]
    if name == "top1":
        error = math.sqrt(after * (1 - after) / last.samples)
        lines.append(f"standard error {100 * error:.1f} points")
    return _card(title, f"{written(name, before)} → {written(name, after)}", *lines)


def _verified(report: JobReport) -> Markup:
    found = report.verification
    if found is None:
        return _card("Verified", "no")
    samples = found.data_samples + found.random_samples
    return _card(
        "Verified bit for bit",
        f"{len(found.executions)} executions",
        f"{found.tensors} tensors of {samples} samples ({found.random_samples} random)",
    )


def _costs(report: JobReport) -> list[Markup]:
    cost, memory, cards = report.cost, report.memory, []
    if cost is not None:
        cards.append(_card("Latency, by the model", si(cost.latency_s, "s"), f"{cost.cycles:,.0f} cycles at 260 MHz"))
        cards.append(_card("Energy, by the model", si(cost.energy_j, "J"), f"{cost.macs:,} multiplications"))
    if memory is not None:
        limit = memory.limits["l2"]
        share = memory.total_bytes / limit
        cards.append(
            _card(
                "Memory",
                f"{memory.total_bytes:,} B",
                f"{share:.0%} of the chip's {limit:,} B: {memory.weight_bytes:,} weights, "
                f"{memory.peak_activation_bytes:,} activations at their peak",
            )
        )
    return cards


def _warnings(report: JobReport) -> Markup:
    count = len(report.warnings)
    link = element("a", "what they are" if count > 1 else "what it is", href="#warnings")
    return _card("Warnings", str(count) if count else "none", link if count else "nothing stands out")
