"""Stacks and the undisturbed job.

Every test here carries the marker `faults`, and runs on both databases: those on PostgreSQL are `slow`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from .job import Length, Reference, plant, undisturbed
from .recovery import Recorder
from .stack import Stack

HERE = Path(__file__).parent

MakeStack = Callable[..., Stack]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.faults)
            if "postgresql" in item.name:
                item.add_marker(pytest.mark.slow)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    chosen = any("database_url" in mark.args[0] for mark in metafunc.definition.iter_markers("parametrize"))
    if "database_url" in metafunc.fixturenames and not chosen:
        metafunc.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture(scope="session")
def reference_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Length], Reference]:
    """The undisturbed job of a length, run when it is first asked for."""
    known: dict[Length, Reference] = {}

    def reference(length: Length) -> Reference:
        if length not in known:
            known[length] = undisturbed(tmp_path_factory.mktemp(length), length)
        return known[length]

    return reference


@pytest.fixture
def short(reference_of: Callable[[Length], Reference]) -> Reference:
    return reference_of("short")


@pytest.fixture
def long(reference_of: Callable[[Length], Reference]) -> Reference:
    return reference_of("long")


@pytest.fixture
def record(database_url: str) -> Recorder:
    return Recorder("PostgreSQL" if database_url.startswith("postgresql") else "SQLite")


@pytest.fixture
def make_stack(tmp_path: Path, database_url: str, request: pytest.FixtureRequest) -> Iterator[MakeStack]:
    """Starts a stack that knows the uploads of a reference, and ends it with the test."""
    with ExitStack() as stacks:

        def make(reference: Reference, **options: Any) -> Stack:
            stack = Stack(tmp_path / "stack", database_url, **options)
            stacks.enter_context(stack)
            plant(stack, reference)
            # Shown by pytest when the test fails.
            request.node.user_properties.append(("stack", stack.name))
            return stack

        yield make
