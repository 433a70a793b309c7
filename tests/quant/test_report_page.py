"""`report.html`: well-formed, alone in the world, safe whatever names say, and of the same figures as the report."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from dianaq.schemas.figures import written
from dianaq.schemas.report import JobReport
from dianaq_quant.bundle.report_html import report_page
from dianaq_quant.bundle.report_html.markup import Markup, element, join
from dianaq_quant.bundle.report_html.page import POLICY
from dianaq_quant.bundle.report_html.units import MINUS, dimensions, interval, plural, power_of_two, si

from .test_report import mixed, reconstruction, unlabelled

VOID = {"meta", "br"}
HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>&lt;"
MAKERS = {"mixed": mixed, "reconstruction": reconstruction, "unlabelled": unlabelled}


class Page(HTMLParser):
    """A page as a browser reads it: its elements, its tables, its text; complains of what is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.text = ""
        self._rows: list[list[str]] = []
        self._caption = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs), "an attribute is there twice"
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self._rows, self._caption = [], ""
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("th", "td"):
            self._rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag == "table":
            self.tables[self._caption] = self._rows

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data
        if "caption" in self.open:
            self._caption += data
        elif self.open and "table" in self.open and ("td" in self.open or "th" in self.open):
            self._rows[-1][-1] += data

    def table(self, beginning: str) -> list[list[str]]:
        return next(rows for caption, rows in self.tables.items() if caption.startswith(beginning))


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: run(tmp_path_factory.mktemp("job")).folder for name, run in MAKERS.items()}


@pytest.fixture(params=list(MAKERS))
def bundle(request: pytest.FixtureRequest, bundles: dict[str, Path]) -> Path:
    return bundles[request.param]


def data_of(bundle: Path) -> dict[str, Any]:
    report = JobReport.model_validate_json((bundle / "report.json").read_bytes())
    return report.model_dump(mode="json", exclude_unset=True)


def page_of(data: dict[str, Any]) -> str:
    return report_page(JobReport.model_validate(data), {"htvm/model.onnx": 1234})


def test_it_is_well_formed_and_can_be_read_aloud(bundle: Path) -> None:
    page = Page((bundle / "report.html").read_text(encoding="utf-8"))
    tags = [tag for tag, _ in page.elements]
    assert tags.count("h1") == 1
    assert tags.count("table") == tags.count("caption") >= 4
    assert all(a.get("aria-label") or a.get("aria-hidden") for tag, a in page.elements if tag == "svg")
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    named = {a["aria-labelledby"] for _, a in page.elements if "aria-labelledby" in a}
    links = {(a["href"] or "").removeprefix("#") for tag, a in page.elements if tag == "a"}
    assert named | links <= set(ids)


def test_it_needs_nothing_from_elsewhere(bundle: Path) -> None:
    text = (bundle / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert {tag for tag, _ in page.elements} & {"script", "link", "img", "iframe", "object", "base", "form"} == set()
    for tag, attributes in page.elements:
        assert not {"src", "srcset", "data", "action"} & attributes.keys()
        assert not [name for name in attributes if name.startswith("on")]
        assert (attributes.get("href") or "#").startswith("#"), tag
    assert re.search(r"https?:|url\(|@import|@font-face", text) is None
    policies = [a for tag, a in page.elements if tag == "meta" and "http-equiv" in a]
    assert policies == [{"http-equiv": "Content-Security-Policy", "content": POLICY}]
    assert "default-src 'none'" in POLICY


def test_every_layer_is_there_with_its_figures(bundle: Path) -> None:
    data, page = data_of(bundle), Page((bundle / "report.html").read_text(encoding="utf-8"))
    header, *rows = page.table("Layers of the integer network")
    assert len(rows) == len(data["layers"])
    for layer, cells in zip(data["layers"], rows, strict=True):
        row = dict(zip(header, cells, strict=True))
        assert row["layer"] == layer.get("original", layer["name"])
        assert row["core"] == layer.get("core", "–")  # noqa: RUF001
        assert row["range"].replace(MINUS, "-") == str(layer["range"])
        if "sqnr_db" in layer:
            assert row["SQNR"] == f"{layer['sqnr_db']:.1f} dB"
        if layer.get("cycles"):
            assert row["cycles"] == f"{layer['cycles']:,.0f}"
            assert row["MACs"] == f"{layer['macs']:,}"
            assert row["weight bytes"] == f"{layer['weight_bytes']:,}"
            assert row["latency"] == si(layer["latency_s"], "s")
    if data["accuracy"]:
        header, *rows = page.table("Figures of the network after each stage")
        for entry, cells in zip(data["accuracy"], rows, strict=True):
            row = dict(zip(header, cells, strict=True))
            for name, title in (("top1", "accuracy"), ("loss", "loss"), ("mse", "MSE"), ("auc", "AUC")):
                assert row.get(title, "-") == (written(name, entry[name]) if name in entry else "-")


def test_the_verdict_has_the_totals(bundle: Path) -> None:
    data, page = data_of(bundle), Page((bundle / "report.html").read_text(encoding="utf-8"))
    assert "Verified bit for bit. Read the" in page.text
    for words in (
        si(data["cost"]["latency_s"], "s"),
        si(data["cost"]["energy_j"], "J"),
        f"{data['memory']['total_bytes']:,} B",
        f"{data['verification']['tensors']} tensors of 128 samples",
        f"Warnings{len(data['warnings'])}",
    ):
        assert words in page.text
    assert all(line[1:] in page.text for line in [*data["warnings"], *data["notes"]])


def test_a_network_without_warnings_is_ready_and_one_not_verified_is_not(bundles: dict[str, Path]) -> None:
    data = data_of(bundles["mixed"])
    assert "ready to hand to the compilers" in page_of({**data, "warnings": []})
    assert "Read the 2 warnings" in page_of({**data, "warnings": ["one", "two"]})
    assert "Do not deploy it" in page_of({**data, "verification": None})


def test_training_and_noise_are_drawn_where_there_were_any(bundles: dict[str, Path]) -> None:
    mixed = Page((bundles["mixed"] / "report.html").read_text(encoding="utf-8"))
    labels = [a["aria-label"] or "" for tag, a in mixed.elements if tag == "svg" and "aria-label" in a]
    assert any(label.startswith("loss over epoch of the job: float from") for label in labels)
    assert any(label.startswith("accuracy, mean and standard deviation") for label in labels)
    assert sum(label.startswith("Histogram of the") for label in labels) == 3
    levels = data_of(bundles["mixed"])["noise_sweep"]
    rows = mixed.table("The same in numbers")[1:]
    assert [row[0] for row in rows] == [f"{level['gaussian']:g}" for level in levels]
    plain = Page((bundles["unlabelled"] / "report.html").read_text(encoding="utf-8"))
    assert "Nothing was trained" in plain.text
    assert "Noise in the converters" not in plain.text
    assert "not measured" in plain.text


FINDING = {"rule": "htvm.kernel", "node": "conv", "message": "it is 4x4", "severity": "cpu", "says": "1, 3, 5 or 7"}
ENUMERATED = {"stage", "core", "iteration"}
"""Fields whose words are ours."""


def poisoned(value: Any, poison: str, key: str = "") -> Any:
    """A report in which every text, and every key that is not a field's name, ends in something."""
    if isinstance(value, dict):
        inside = key in ("tensors", "versions", "samples", "spec", "checks", "interface")
        return {f"{name}{poison}" if inside else name: poisoned(entry, poison, name) for name, entry in value.items()}
    if isinstance(value, list):
        return [poisoned(entry, poison, key) for entry in value]
    return value + poison if isinstance(value, str) and key not in ENUMERATED else value


def test_hostile_names_stay_text(bundle: Path) -> None:
    clean = data_of(bundle)
    for layer in clean["layers"][1:]:
        layer["placement"] = {"htvm": {"offloaded": False, "reasons": ["a kernel"]}}
    clean |= {"interface": {"input": "pixels"}, "checks": {"htvm": [FINDING], "dory": []}}
    page = Page(page_of(poisoned(clean, HOSTILE)))
    before = Page(page_of(poisoned(clean, "x" * len(HOSTILE))))
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in before.elements]
    assert [sorted(a) for _, a in page.elements] == [sorted(a) for _, a in before.elements]
    assert HOSTILE in page.text
    assert f"{clean['layers'][1]['original']}{HOSTILE}" in page.text


def test_a_hostile_layer_name_survives_a_whole_job(tmp_path: Path) -> None:
    from .builder import ModelBuilder
    from .support import quantise
    from .test_report import dataset

    b = ModelBuilder((3, 6, 6), seed=3)
    y = b.relu(b.conv(b.input, 4, name="</td><script>alert(1)</script>"))
    model = b.build(b.gemm(b.flatten(b.global_pool(y)), 3, name="head"))
    folder = quantise(model, {"x_train": dataset()["x_train"][:12]}, tmp_path).folder
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "<script" not in text
    assert "</td><script>alert(1)</script>" in Page(text).text


def test_placement_is_shown_where_the_report_has_it(bundles: dict[str, Path]) -> None:
    data = data_of(bundles["mixed"])
    for layer in data["layers"]:
        layer["placement"] = None
    assert "Placement by the compilers" not in page_of(data)
    data["layers"][1]["placement"] = {
        "htvm": {"offloaded": False, "reasons": ["kernel 4 x 4", "stride 3"]},
        "dory": {"offloaded": True, "reasons": []},
    }
    rows = Page(page_of(data)).table("Where the compilers run each layer")
    assert rows == [
        ["layer", "htvm", "dory"],
        [data["layers"][1]["original"], "no: kernel 4 x 4; stride 3", "as meant"],
    ]


def test_what_the_checks_found_is_shown(bundles: dict[str, Path]) -> None:
    data = data_of(bundles["mixed"])
    page = Page(page_of({**data, "checks": {"htvm": [FINDING], "dory": []}, "interface": {"input": {"kind": "int8"}}}))
    assert page.table("Rules of the compilers")[1] == [
        "htvm",
        "cpu",
        "htvm.kernel",
        "conv",
        "it is 4x4",
        "1, 3, 5 or 7",
    ]
    assert "nothing found: dory." in page.text
    assert page.table("What the network is fed")[1] == ["input", "kind: int8"]
    assert "Rules of the compilers" not in page_of({**data, "checks": {"htvm": [], "dory": []}})


def test_remedies_are_shown_where_there_were_any(bundles: dict[str, Path]) -> None:
    data = data_of(bundles["mixed"]) | {"remedies": []}
    assert "What was changed for the compilers" not in page_of(data)
    remedy = {"dialect": "htvm", "editor": "PadChannels", "node": "head", "applied": True, "note": "3 to 4"}
    rows = Page(page_of({**data, "remedies": [remedy, {**remedy, "applied": False}]})).table("Remedies")
    assert rows[1:] == [["htvm", "PadChannels", "head", how, "3 to 4"] for how in ("applied", "passed over")]
    assert "20 remedies" in Page(page_of({**data, "remedies": [remedy] * 20})).text


def test_costs_of_both_files_are_shown(bundles: dict[str, Path]) -> None:
    data = data_of(bundles["mixed"])
    data["deployed"]["dory"]["cost"]["macs"] = 123456
    rows = Page(page_of(data)).table("The network as each compiler gets it")
    assert [row[0] for row in rows[1:]] == ["htvm", "dory"]
    assert [row[3] for row in rows[1:]] == [f"{data['deployed']['htvm']['cost']['macs']:,}", "123,456"]


def test_long_lists_are_folded(bundles: dict[str, Path]) -> None:
    report = JobReport.model_validate(data_of(bundles["mixed"]))
    files = {f"golden/out_layer{i}.txt": i for i in range(50)}
    page = Page(report_page(report, files))
    assert "50 files" in page.text
    assert [row[0] for row in page.table("Files of the bundle")[1:]] == list(files)  # 10 after 9, not after 1


def test_markup_escapes_all_but_markup() -> None:
    assert element("p", "<b>", Markup("<i>")) == "<p>&lt;b&gt;<i></p>"
    assert element("a", title='"><x>', hidden=True, lang=None) == '<a title="&quot;&gt;&lt;x&gt;" hidden></a>'
    assert element("path", d="M0 0", stroke_width=1.5) == '<path d="M0 0" stroke-width="1.5"/>'
    assert join("&", None, element("br")) == "&amp;<br>"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.000314, "314 µs"),
        (0.0, "0 s"),
        (1.0, "1.00 s"),
        (7.828e-6, "7.83 µs"),
        (9.999e-4, "1000 µs"),
        (2e-15, "0.00200 ps"),
    ],
)
def test_units(value: float, text: str) -> None:
    assert si(value, "s") == text


def test_words_of_numbers() -> None:
    assert power_of_two(0.25, -2) == "2⁻²"
    assert power_of_two(0.3, None) == "0.3"
    assert interval((-128, 127)) == f"[{MINUS}128, 127]"
    assert dimensions([16, 8]) == "16 × 8"  # noqa: RUF001
    assert [plural(n, "edit") for n in (0, 1, 2)] == ["no edits", "1 edit", "2 edits"]
