"""The drawing of the house, and the house."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("client/dianaq", "service/dianaq_service", "worker/dianaq_worker", "worker/dianaq_quant")


def named(document: str) -> set[str]:
    """The paths that a document names: what stands in backticks and has a slash, or is a file of the root."""
    quoted = re.findall(r"`([^`\n]+)`", (ROOT / document).read_text())
    tops = {path.name for path in ROOT.iterdir()}
    return {
        text for text in quoted if (text in tops and text != ".venv") or ("/" in text and text.split("/")[0] in tops)
    }


def linked(document: str) -> set[Path]:
    """The files that a document links to, on this side of the web."""
    folder = (ROOT / document).parent
    targets = re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", (ROOT / document).read_text())
    return {(folder / target).resolve() for target in targets}


@pytest.mark.parametrize("document", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_every_path_that_a_document_names_is_there(document: str) -> None:
    paths = named(document)
    assert len(paths) > 2
    assert not {path for path in paths if not any(ROOT.glob(path))}


@pytest.mark.parametrize(
    "document", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", *(f"docs/{p.name}" for p in ROOT.glob("docs/*.md"))]
)
def test_every_link_of_a_document_leads_somewhere(document: str) -> None:
    assert not {path for path in linked(document) if not path.exists()}


def test_every_room_is_drawn() -> None:
    drawing = (ROOT / "docs" / "architecture.md").read_text()
    rooms = {
        str(init.parent.relative_to(ROOT)) for package in PACKAGES for init in (ROOT / package).glob("*/__init__.py")
    }
    assert len(rooms) > 20
    undrawn = {room for room in rooms if room not in drawing and f"`{room.rpartition('/')[2]}`" not in drawing}
    assert not undrawn


def test_the_version_of_the_package_has_its_changes_listed() -> None:
    version = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    headings = re.findall(r"^## \[(.*?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[:2] == ["Unreleased", version.group(1)]
