"""The page's pictures: training curves, noise sweep, bars of fidelity, cost and memory, histograms of weights."""

from __future__ import annotations

import math
from collections.abc import Callable

from dianaq.schemas.figures import FIGURES, SHARES, parted, written
from dianaq.schemas.report import JobReport, LayerReport, NoiseLevel, Spread
from dianaq_quant.bundle.report_html.bars import Bar, bar_chart
from dianaq_quant.bundle.report_html.charts import Line, histogram_chart, line_chart
from dianaq_quant.bundle.report_html.markup import Content, Markup, details, element, join, table
from dianaq_quant.bundle.report_html.tables import layer_name
from dianaq_quant.bundle.report_html.units import NONE, interval, si

FULL_DB = 50.0
"""Signal to quantisation noise of a sine that fills 8 bits: 6.02 * 8 + 1.76."""

_CORES = ("digital", "analog")
"""In the order of their colours."""


def _is_share(name: str) -> bool:
    """Whether a figure (or an event's name of one) is at most 1."""
    figure, _ = parted(name)
    return figure in (*SHARES, "auc")


def _number(name: str) -> Callable[[float], str]:
    percent = parted(name)[0] in SHARES
    return (lambda value: f"{100 * value:.4g}%") if percent else (lambda value: f"{value:.4g}")


def _highest(name: str) -> float | None:
    return 1.0 if _is_share(name) else None


def training_curves(report: JobReport) -> Markup:
    """A chart per figure; the iterations follow each other along the axis of epochs."""
    if not report.training:
        return element("p", "Nothing was trained in this job.")
    names = dict.fromkeys(name for epoch in report.training for name in epoch.figures)
    stages = dict.fromkeys(epoch.stage for epoch in report.training)
    charts = []
    for name in names:
        lines = [
            Line(
                stage,
                [
                    (float(place), epoch.figures[name])
                    for place, epoch in enumerate(report.training, 1)
                    if epoch.stage == stage and name in epoch.figures
                ],
                colour=colour,
            )
            for colour, stage in enumerate(stages)
        ]
        known = [line for line in lines if line.points]
        base, split = parted(name)
        title = FIGURES.get(base, base) + (f" on {split}" if split else "")
        axes = {"x_axis": "epoch of the job", "title": title}
        charts.append(line_chart(known, **axes, y_text=_number(name), highest=_highest(name)))
    return element("div", *charts, class_="plots")


def noise_plot(report: JobReport) -> Markup | None:
    """The leading figure over the noise, with the spread over draws; all figures in a table."""
    levels = report.noise_sweep
    if not levels:
        return None
    names = [name for name in FIGURES if _spread(levels[0], name) is not None]
    charts = []
    for name in names:
        spreads = [(level, _spread(level, name)) for level in levels]
        known = [(level.gaussian, found) for level, found in spreads if found is not None]
        line = Line(FIGURES[name], [(x, found.mean) for x, found in known], [found.std for _, found in known])
        title = f"{FIGURES[name]}, mean and standard deviation over draws"
        axes = {"x_axis": "noise in converter steps (LSB)", "title": title}
        charts.append(line_chart([line], **axes, y_text=_number(name), highest=_highest(name)))
    rows: list[list[Content]] = []
    for level in levels:
        cells = [(name, _spread(level, name)) for name in names]
        figures = [
            NONE if found is None else f"{written(name, found.mean)} ± {written(name, found.std)}"
            for name, found in cells
        ]
        rows.append([f"{level.gaussian:g}", *figures, str(level.draws), f"{level.samples:,}"])
    header = ["noise (LSB)", *(FIGURES[name] for name in names), "draws", "samples"]
    return join(
        element(
            "p",
            "The finished network with Gaussian noise in the analog core's converters, as if on several chips. No "
            "noise model of the chip is published: this is an assumption, and the exported files are without it.",
        ),
        element("div", *charts, class_="plots"),
        table("The same in numbers", header, rows, numeric=range(len(header))),
    )


def _spread(level: NoiseLevel, name: str) -> Spread | None:
    found = getattr(level, name)
    assert found is None or isinstance(found, Spread)
    return found


def fidelity_bars(report: JobReport) -> Markup:
    """Signal to quantisation noise per layer."""
    layers = [layer for layer in report.layers if layer.sqnr_db is not None]
    if report.sqnr is None or not layers:
        return element("p", "Not measured.")
    bars = [
        Bar(layer_name(layer), [(max(0.0, layer.sqnr_db or 0.0), _colour(layer))], f"{layer.sqnr_db:.1f} dB")
        for layer in layers
    ]
    key = _key(report)
    return join(
        element(
            "p",
            f"Signal to quantisation noise of every layer's output, errors of the layers before included, on "
            f"{report.sqnr.samples} calibration samples, compared with {report.sqnr.reference}. 20 dB are an error of "
            "a tenth of the signal, 6 dB one bit.",
        ),
        bar_chart("Signal to quantisation noise; 50 dB, all that 8 bits hold, fill a bar", bars, full=FULL_DB, key=key),
    )


def _colour(layer: LayerReport) -> int:
    return 1 if layer.core == "analog" else 0


def _key(report: JobReport) -> tuple[str, ...]:
    """Names of the colours; none where all layers have one."""
    return _CORES if any(layer.core == "analog" for layer in report.layers) else ()


def cost_bars(report: JobReport) -> Markup:
    """Latency, energy and memory per layer."""
    cost, memory = report.cost, report.memory
    if cost is None or memory is None:
        return element("p", "Not computed.")
    layers = [layer for layer in report.layers if layer.macs is not None]
    timed = [layer for layer in layers if layer.cycles]
    charts = [
        bar_chart(
            f"Latency, {si(cost.latency_s, 's')} in all",
            [
                Bar(layer_name(layer), [(layer.latency_s or 0, _colour(layer))], si(layer.latency_s or 0, "s"))
                for layer in timed
            ],
            key=_key(report),
        ),
        bar_chart(
            f"Energy, {si(cost.energy_j, 'J')} in all",
            [
                Bar(layer_name(layer), [(layer.energy_j or 0, _colour(layer))], si(layer.energy_j or 0, "J"))
                for layer in timed
            ],
            key=_key(report),
        ),
        bar_chart(
            f"Activations in memory while a layer runs, {memory.peak_activation_bytes:,} B at the peak",
            [Bar(layer_name(layer), [(layer.live_bytes or 0, 2)], f"{layer.live_bytes or 0:,} B") for layer in layers],
        ),
        bar_chart(
            f"Weights, {memory.weight_bytes:,} B in all",
            [
                Bar(layer_name(layer), [(layer.weight_bytes, 3)], f"{layer.weight_bytes:,} B")
                for layer in layers
                if layer.weight_bytes
            ],
        ),
    ]
    missing = ", ".join(layer_name(layer) for layer in layers if layer.name in cost.not_modelled)
    words = (
        "Cycles by the published ODiMO model: layers one after the other at 260 MHz, the core's power while it "
        "computes; a model, not a measurement."
    )
    if missing:
        words += f" There is none of pooling, additions and flattening, which count as nothing: {missing}."
    return join(element("p", words), element("div", *charts, class_="plots two"), _deployed(report), _limits(report))


def _deployed(report: JobReport) -> Markup | None:
    """The totals of the network as each compiler gets it."""
    rows: list[list[Content]] = [
        [
            dialect,
            si(found.cost.latency_s, "s"),
            si(found.cost.energy_j, "J"),
            f"{found.cost.macs:,}",
            f"{found.memory.weight_bytes:,}",
            f"{found.memory.peak_activation_bytes:,}",
        ]
        for dialect, found in report.deployed.items()
    ]
    header = ["file for", "latency", "energy", "MACs", "weight bytes", "activation bytes, peak"]
    caption = "The network as each compiler gets it, channels that are padded for it included"
    return table(caption, header, rows, numeric=range(1, 6)) if rows else None


_MEMORIES = {
    "l2": ("L2, weights and activations", "total_bytes"),
    "l1_tvm": ("L1 activations of a layer (Diana_TVM)", "moved"),
    "l1_soc": ("L1 activations of a layer (Diana_SoC)", "moved"),
    "digital_weights": ("weights of a digital layer", "digital"),
    "analog_weights": ("weights of an analog layer", "analog"),
}


def _limits(report: JobReport) -> Markup:
    """The chip's memories beside the most that is asked of each."""
    memory = report.memory
    assert memory is not None
    linear = [layer for layer in report.layers if layer.weight_shape is not None]
    asked = {
        "total_bytes": memory.total_bytes,
        "moved": max(((layer.input_bytes or 0) + (layer.output_bytes or 0) for layer in linear), default=0),
        "digital": max((layer.weight_bytes or 0 for layer in linear if layer.core == "digital"), default=0),
        "analog": max((layer.weight_bytes or 0 for layer in linear if layer.core == "analog"), default=0),
    }
    rows: list[list[Content]] = []
    for name, limit in memory.limits.items():
        words, what = _MEMORIES.get(name, (name, ""))
        size = asked.get(what)
        if size:
            rows.append(
                [words, f"{size:,}", f"{limit:,}", f"{size / limit:.0%}", "fits" if size <= limit else "too small"]
            )
    header = ["memory", "asked", "limit", "used", ""]
    return table("The chip's memories, and the most that is asked of each, in bytes", header, rows, numeric=(1, 2, 3))


def weight_histograms(report: JobReport) -> Markup:
    """A small histogram per layer; those of large networks folded after the first dozen."""
    drawn = [_histogram(layer) for layer in report.layers if layer.weights is not None]
    first, rest = drawn[:12], drawn[12:]
    more = details(f"{len(rest)} more", element("div", *rest, class_="plots small")) if rest else None
    return join(
        element("p", "Integers of every layer's weights. Saturated are those at either end of their range."),
        element("div", *first, class_="plots small"),
        more,
    )


def _histogram(layer: LayerReport) -> Markup:
    assert layer.weights is not None
    words = f"{math.prod(layer.weight_shape or []):,} weights in {interval(layer.weight_range)}"
    if layer.weights.saturated is not None:
        words += f", {layer.weights.saturated:.2%} saturated"
    if layer.zero_weights is not None:
        words += f", {layer.zero_weights:.0%} zero"
    name = layer_name(layer)
    return element(
        "figure",
        element("figcaption", element("strong", name), element("br"), words),
        histogram_chart(layer.weights, name),
    )
