"""Imports point one way: dianaq <- dianaq_service <- dianaq_worker -> dianaq_quant -> dianaq."""

from __future__ import annotations

import ast
import graphlib
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


GROUND_FLOOR = {"schemas", "errors", "inspection", "executor", "config", "cli"}
"""Rooms of the client that the other packages may enter; `dianaq` itself they ask for its version alone."""


def rooms(file: Path) -> Iterator[str]:
    """What a file imports of `dianaq`, one step below its root."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module == "dianaq":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").startswith("dianaq."):
            yield str(node.module).split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("dianaq."))


@pytest.mark.parametrize("package", ["dianaq_service", "dianaq_worker", "dianaq_quant"])
def test_the_others_enter_only_the_shared_rooms_of_the_client(package: str) -> None:
    files = list(PACKAGES[package].rglob("*.py"))
    found = {(str(f.relative_to(ROOT)), room) for f in files for room in rooms(f)}
    assert found
    assert not {(f, room) for f, room in found if room not in GROUND_FLOOR | {"__version__"}}


def test_the_ground_floor_stands_on_itself() -> None:
    """Schemas know the errors and one another, and nothing above them."""
    schemas = PACKAGES["dianaq"] / "schemas"
    assert {room for f in schemas.glob("*.py") for room in rooms(f)} == {"schemas", "errors"}


def modules_of(package: str) -> dict[str, set[str]]:
    """Every module of a package, and which others of the package it imports when it is imported."""
    root = PACKAGES[package]
    names = {
        ".".join(f.relative_to(root.parent).with_suffix("").parts).removesuffix(".__init__"): f
        for f in root.rglob("*.py")
    }
    found: dict[str, set[str]] = {}
    for name, file in names.items():
        found[name] = set()
        for node in ast.parse(file.read_text()).body:  # what stands in functions is imported later
            if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                inner = {f"{node.module}.{alias.name}" for alias in node.names} & names.keys()
                found[name] |= inner or {node.module} & names.keys()
            elif isinstance(node, ast.Import):
                found[name] |= {alias.name for alias in node.names} & names.keys()
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_no_import_goes_round_in_a_circle(package: str) -> None:
    try:
        graphlib.TopologicalSorter(modules_of(package)).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize(("package", "files"), [("dianaq", 13), ("dianaq_quant", 8)])
def test_the_root_of_a_package_is_no_storeroom(package: str, files: int) -> None:
    """What is at home in a room stands there; a new file at the root needs a reason, and a number here."""
    assert len(list(PACKAGES[package].glob("*.py"))) <= files


def test_only_the_child_process_imports_the_quantisation_library() -> None:
    worker = PACKAGES["dianaq_worker"]
    users = {f.relative_to(worker).parts[0] for f in worker.rglob("*.py") if "dianaq_quant" in imports(f)}
    assert users == {"child"}
