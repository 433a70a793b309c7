"""What importing the client costs: no torch, no numpy, no onnx, nothing of the server."""

from __future__ import annotations

import subprocess
import sys

import pytest

import dianaq

HEAVY = {"torch", "numpy", "onnx", "onnxruntime", "fastapi", "sqlalchemy", "celery", "dianaq_service", "dianaq_worker"}


def _loaded(code: str) -> set[str]:
    """Top-level modules that are loaded after some code ran in a fresh interpreter."""
    script = f"{code}\nimport sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "import dianaq; dianaq.Client",
        "from dianaq import *",
        "from dianaq.inspection import check_fit, file_format, input_layout, inspect_weights",
        "import dianaq.cli.options",
        "from dianaq.cli import _parse; _parse(['jobs', 'list'])",
        "from dianaq.cli import _parse; _parse(['compare', 'a', 'b'])",
        "import dianaq.run",
    ],
)
def test_light_imports(code: str) -> None:
    assert _loaded(code) & HEAVY == set()


def test_a_client_alone_does_not_build_the_models_of_reports() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from dianaq import Client, JobSpec; import sys; print('dianaq.schemas.report' in sys.modules)",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False\n"


def test_the_package_alone_loads_nothing() -> None:
    assert _loaded("import dianaq") & {"httpx", "pydantic", "tqdm", "yaml"} == set()


def test_every_public_name_exists() -> None:
    assert [name for name in dianaq.__all__ if getattr(dianaq, name, None) is None] == []
    assert set(dianaq.__all__) <= set(dir(dianaq))
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        dianaq.Nothing  # noqa: B018
