"""The whole page."""

from __future__ import annotations

from collections.abc import Mapping

from dianaq.schemas.report import JobReport
from dianaq_quant.bundle.report_html import figures, tables
from dianaq_quant.bundle.report_html.markup import Content, Markup, element, join, section
from dianaq_quant.bundle.report_html.style import CSS
from dianaq_quant.bundle.report_html.verdict import verdict

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""Nothing is loaded and nothing runs, whatever a layer is called: the second lock after escaping."""

_OFF_CHIP = (
    "Cycles, latency and energy come from a model. The compilers and the chip were not run: what their generated code "
    "does, how fast it is, and how noisy the converters of a chip are cannot be told here."
)


def report_page(report: JobReport, files: Mapping[str, int]) -> str:
    """The report as one HTML page that needs no other file and no network.

    Args:
        files: size in bytes of each of the bundle's files, by path.
    """
    sweep, placement = figures.noise_plot(report), tables.placement_table(report)
    remedies = tables.remedies_table(report)
    sections = [
        section("Warnings", "warnings", _sentences(report.warnings, "Nothing stands out.")),
        section("Accuracy", "accuracy", tables.accuracy_table(report)),
        section("What was verified", "verified", _verified(report)),
        section("Training", "training", figures.training_curves(report)),
        section("Layers", "layers", tables.layer_table(report)),
        section("Where precision is lost", "precision", figures.fidelity_bars(report)),
        section("Cost and memory", "cost", figures.cost_bars(report)),
        section("Placement by the compilers", "placement", placement) if placement else None,
        section("What was changed for the compilers", "remedies", remedies) if remedies else None,
        section("Weights", "weights", figures.weight_histograms(report)),
        section("Noise in the converters", "noise", sweep) if sweep else None,
        section("Notes", "notes", _sentences(report.notes, "There are none.")),
        section("How it was made", "made", tables.edits_summary(report)),
        section("Files", "files", tables.files_table(files)),
    ]
    title = f"Quantisation report: {network_name(report)}"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", Markup(CSS)),
    )
    body = element("body", element("header", *_heading(report, title)), element("main", *sections))
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def network_name(report: JobReport) -> str:
    """What the job quantised: the name of an upload or a file, or the zoo's architecture."""
    model = report.spec.get("model")
    return str(model.get("architecture")) if isinstance(model, Mapping) else str(model)


def _heading(report: JobReport, title: str) -> list[Content]:
    spec = report.spec
    words = f"{spec.get('task')} on {spec.get('dataset')} · dianaq {report.versions.get('dianaq')} · seed {report.seed}"
    return [element("h1", title), element("p", words, class_="soft"), verdict(report)]


def _sentences(lines: list[str], otherwise: str) -> Markup:
    if not lines:
        return element("p", otherwise)
    return element("ul", *[element("li", f"{_capital(line)}.") for line in lines], class_="list")


def _capital(line: str) -> str:
    """With a capital, unless it begins with a name."""
    first = line.partition(" ")[0]
    return line[:1].upper() + line[1:] if first.isalpha() else line


def _verified(report: JobReport) -> Markup:
    found = report.verification
    if found is None:
        return element("p", "Nothing.")
    return join(
        element(
            "p",
            f"Every layer's output ({found.tensors} tensors) was the same, bit for bit, on {found.data_samples} data "
            f"samples and {found.random_samples} random ones in:",
        ),
        element("ul", *[element("li", name) for name in found.executions], class_="list"),
        tables.findings_table(report),
        tables.facts(report.interface, "What the network is fed, and what it gives") if report.interface else None,
        element("p", _OFF_CHIP, class_="soft"),
    )
