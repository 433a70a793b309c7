"""Imports point one way: dianaq <- dianaq_service <- dianaq_worker -> dianaq_quant -> dianaq."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {
    "dianaq": ROOT / "client" / "dianaq",
    "dianaq_service": ROOT / "service" / "dianaq_service",
    "dianaq_worker": ROOT / "worker" / "dianaq_worker",
    "dianaq_quant": ROOT / "worker" / "dianaq_quant",
}
FORBIDDEN = {
    "dianaq": {"dianaq_service", "dianaq_worker", "dianaq_quant", "torch", "fastapi", "celery", "sqlalchemy", "redis"},
    "dianaq_service": {"dianaq_worker", "dianaq_quant", "torch", "onnx", "numpy"},
    "dianaq_worker": {"torch"},
    "dianaq_quant": {"dianaq_service", "dianaq_worker", "fastapi", "celery", "sqlalchemy", "redis", "httpx"},
}


def imports(file: Path) -> Iterator[str]:
    """Top-level names of the packages that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.partition(".")[0]


@pytest.mark.parametrize("package", FORBIDDEN)
def test_a_package_imports_only_what_it_may(package: str) -> None:
    files = list(PACKAGES[package].rglob("*.py"))
    assert files
    found = {(str(f.relative_to(ROOT)), name) for f in files for name in imports(f) if name in FORBIDDEN[package]}
    assert not found


def test_only_the_child_process_imports_the_quantisation_library() -> None:
    worker = PACKAGES["dianaq_worker"]
    users = {f.relative_to(worker).parts[0] for f in worker.rglob("*.py") if "dianaq_quant" in imports(f)}
    assert users == {"child"}
