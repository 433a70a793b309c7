"""The page's tables: accuracy by stage, layers, edits, files."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from dianaq.schemas.figures import FIGURES, figures_of, written
from dianaq.schemas.report import JobReport, LayerReport, Placement
from dianaq_quant.bundle.bundle_files import purpose
from dianaq_quant.bundle.report_html.markup import Content, Markup, details, element, join, table
from dianaq_quant.bundle.report_html.units import ARROW, NONE, dimensions, interval, plural, power_of_two, si
from dianaq_quant.bundle.report_html.verdict import change, leading


def accuracy_table(report: JobReport) -> Markup:
    """Every figure of every stage."""
    if not report.accuracy:
        return element("p", "Not measured: the dataset has no labels that the task could be measured on.")
    names = figures_of(entry.model_dump(exclude_unset=True) for entry in report.accuracy)
    main = leading(report)
    if main is not None and main[0] == "sqnr_db":  # which compares with the float network already
        main = None
    header = ["stage", *(FIGURES[name] for name in names), "samples"]
    rows: list[list[Content]] = []
    for entry in report.accuracy:
        row: list[Content] = [entry.stage, *(written(name, getattr(entry, name)) for name in names)]
        row.append(f"{entry.samples:,} ({entry.split})")
        if main is not None:
            name, first, _ = main
            row.append("" if entry is first else change(name, getattr(first, name), getattr(entry, name)))
        rows.append(row)
    if main is not None:
        header.append(f"{FIGURES[main[0]]}, against {main[1].stage}")
    numeric = range(1, len(header))
    return table(
        "Figures of the network after each stage; the last one is what is exported", header, rows, numeric=numeric
    )


def layer_name(layer: LayerReport) -> str:
    """What the user calls a layer."""
    return layer.original or layer.name


def layer_table(report: JobReport) -> Markup:
    """One row per operation of the integer network."""
    rows = [_layer_row(layer) for layer in report.layers]
    return table("Layers of the integer network in the order in which they run", _LAYER, rows, numeric=range(6, 17))


_LAYER = (
    "layer", "operation", "core", "input to output", "range", "scale",
    "shift", "SQNR", "latency", "energy", "cycles", "MACs", "weights", "input scale", "weight scale", "weight bytes",
    "in + out bytes",
)  # fmt: skip
"""Columns of the layers' table; numbers from `shift` on."""


def _layer_row(layer: LayerReport) -> list[Content]:
    name: Content = layer_name(layer)
    if layer.original is not None and layer.original != layer.name:
        name = element("span", layer.original, title=f"in the files: {layer.name}")
    shift = NONE if layer.shift is None else str(layer.shift)
    if layer.adc_gain is not None:
        tiles = f", {layer.row_tiles} row tiles" if (layer.row_tiles or 1) > 1 else ""
        shift = f"{shift} (gain {layer.adc_gain}{tiles})"
    moved = (layer.input_bytes or 0) + (layer.output_bytes or 0)
    inputs = ", ".join(dimensions(shape) for shape in layer.input_shapes or [])
    return [
        name,
        layer.operation,
        layer.core or NONE,
        f"{inputs} {ARROW} {dimensions(layer.shape)}" if inputs else dimensions(layer.shape),
        interval(layer.range),
        power_of_two(layer.scale, layer.scale_log2),
        shift,
        NONE if layer.sqnr_db is None else f"{layer.sqnr_db:.1f} dB",
        si(layer.latency_s, "s") if layer.latency_s else NONE,
        si(layer.energy_j, "J") if layer.energy_j else NONE,
        f"{layer.cycles:,.0f}" if layer.cycles else NONE,
        f"{layer.macs:,}" if layer.macs else NONE,
        interval(layer.weight_range),
        power_of_two(layer.input_scale, layer.input_scale_log2),
        power_of_two(layer.weight_scale, layer.weight_scale_log2),
        f"{layer.weight_bytes:,}" if layer.weight_bytes else NONE,
        f"{moved:,}" if moved else NONE,
    ]


def placement_table(report: JobReport) -> Markup | None:
    """Where the compilers run each layer, as far as the report says."""
    placed = [layer for layer in report.layers if layer.placement]
    if not placed:
        return None
    names = list(dict.fromkeys(name for layer in placed for name in layer.placement or {}))
    rows: list[list[Content]] = [
        [layer_name(layer), *(_wide(_placed((layer.placement or {}).get(name))) for name in names)] for layer in placed
    ]
    return table("Where the compilers run each layer, and why", ["layer", *map(_words, names)], rows)


def _placed(found: Placement | None) -> str | None:
    """Whether a layer runs where it is meant to, or why it does not."""
    if found is None:
        return None
    return "as meant" if found.offloaded else f"no: {'; '.join(found.reasons)}"


def _wide(value: Any) -> Content:
    text = plain(value)
    return element("div", text, class_="wide") if len(text) > 40 else text


def plain(value: Any) -> str:
    """A piece of a report as a line of text."""
    if value is None or value == [] or value == {}:
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return "; ".join(f"{_words(str(name))}: {plain(entry)}" for name, entry in value.items())
    if isinstance(value, list | tuple):
        return "; ".join(plain(entry) for entry in value)
    return str(value)


def _words(name: str) -> str:
    return name.replace("_", " ")


def facts(value: Mapping[str, Any], caption: str) -> Markup:
    """A mapping whose fields the page does not know, as a table."""
    return table(caption, ["what", ""], [[_words(str(name)), _wide(entry)] for name, entry in value.items()])


def remedies_table(report: JobReport) -> Markup | None:
    """What was rewritten for each compiler, and what could not be."""
    if not report.remedies:
        return None
    rows: list[list[Content]] = [
        [r.dialect, r.editor, r.node, "applied" if r.applied else "passed over", _wide(r.note or NONE)]
        for r in report.remedies
    ]
    listed = table("Remedies, each of which leaves the network's integers as they are",
                   ["file for", "remedy", "where", "", "what"], rows)  # fmt: skip
    return listed if len(rows) <= MANY_FINDINGS else details(plural(len(rows), "remedy", "remedies"), listed)


MANY_FINDINGS = 12
"""More than a screen of them is folded; the warnings above name the rules."""


def findings_table(report: JobReport) -> Markup | None:
    """What the checks of the written files found, as far as the report says."""
    if not report.checks:
        return None
    clean = [name for name, found in report.checks.items() if not found]
    rows: list[list[Content]] = [
        [name, finding.severity, finding.rule, finding.node or NONE, _wide(finding.message), _wide(finding.says)]
        for name, found in report.checks.items()
        for finding in found
    ]
    words = f"Checked by every rule of its compiler, and nothing found: {', '.join(clean)}." if clean else None
    header = ["file", "what becomes of it", "rule", "where", "what was found", "what the rule says"]
    broken = table("Rules of the compilers that the files break", header, rows) if rows else None
    if broken is not None and len(rows) > MANY_FINDINGS:
        broken = details(f"{len(rows)} breaches of the compilers' rules", broken)
    return join(element("p", words) if words else None, broken)


def edits_summary(report: JobReport) -> Markup:
    """How often each editor did something, and everything it did, folded."""
    applied, passed = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for edit in report.edits:
        (applied if edit.applied else passed)[edit.stage, edit.editor] += 1
    keys = dict.fromkeys((edit.stage, edit.editor) for edit in report.edits)
    rows: list[list[Content]] = [
        [editor, stage, str(applied[stage, editor]), str(passed[stage, editor])] for stage, editor in keys
    ]
    every: list[list[Content]] = [
        [edit.editor, edit.stage, edit.node, "applied" if edit.applied else "passed over", _wide(edit.note or NONE)]
        for edit in report.edits
    ]
    header = ["editor", "stage", "applied", "passed over"]
    summary = table("Places where an editor applied, and that it passed over", header, rows, numeric=(2, 3))
    return join(
        details(
            f"What each editor did: {plural(sum(applied.values()), 'edit')}",
            summary,
            table("All of them", ["editor", "stage", "node", "", "why"], every),
        ),
        details("The job's specification", element("pre", json.dumps(report.spec, indent=2, ensure_ascii=False))),
        details("Versions, samples and times", _environment(report)),
    )


def _environment(report: JobReport) -> Markup:
    rows: list[list[Content]] = [[name, version] for name, version in report.versions.items()]
    rows += [["device", f"{report.device}, {plural(report.threads, 'thread')}"], ["seed", str(report.seed)]]
    rows += [[f"samples: {name}", f"{count:,}"] for name, count in report.samples.items()]
    if report.started_from is not None:
        start = report.started_from
        rows.append(["started from", f"the network after {start.iteration}, sha256 {start.sha256}"])
    return table("What the job ran with", ["what", ""], rows)


MANY_FILES = 40
"""From here on the list of files is folded: golden vectors alone may be hundreds."""


def files_table(files: Mapping[str, int]) -> Markup:
    """The bundle's files.

    Args:
        files: size in bytes by path.
    """
    rows: list[list[Content]] = [
        [path, f"{files[path]:,}", _wide(purpose(path))] for path in sorted(files, key=_natural)
    ]
    caption = "Files of the bundle, beside those that are made last: this page, report.json, README.md, manifest.json"
    listed = table(caption, ["file", "bytes", "what it is"], rows, numeric=(1,))
    return listed if len(files) < MANY_FILES else details(f"{len(files)} files", listed)


def _natural(path: str) -> list[tuple[int, str]]:
    """An order in which `out_layer10` comes after `out_layer2`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path)]
