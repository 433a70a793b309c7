"""The container files name things that exist. (Nothing is built here.)"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy.engine import make_url

from dianaq_quant.training.device import DEVICE, GPU_MEMORY
from dianaq_service.settings import PREFIX, Settings

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
POSTGRES: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.postgres.yml").read_text())
"""What is laid over it."""
DOCKERFILE = (ROOT / "Dockerfile").read_text()
VARIABLES = {PREFIX + field.name.upper() for field in fields(Settings)} | {DEVICE, GPU_MEMORY}


def test_services_build_targets_that_exist() -> None:
    assert set(COMPOSE["services"]) == {"redis", "api", "worker"}
    targets = set(re.findall(r"^FROM \S+ AS (\w+)$", DOCKERFILE, re.MULTILINE))
    assert {COMPOSE["services"][name]["build"]["target"] for name in ("api", "worker")} <= targets


def test_commands_name_modules_that_exist() -> None:
    text = DOCKERFILE + " ".join(str(s["healthcheck"]["test"]) for s in COMPOSE["services"].values())
    modules = re.findall(r"""["']-m["'], ["']([\w.]+)["']""", text)
    assert sorted(modules) == ["dianaq_service", "dianaq_worker", "dianaq_worker.alive"]
    assert all(importlib.util.find_spec(module) for module in modules)


def test_every_variable_is_one_that_is_read() -> None:
    used = set(re.findall(r"\b(DIANAQ_[A-Z_]+)=", DOCKERFILE))
    for name in ("api", "worker"):
        used |= set(COMPOSE["services"][name]["environment"])
    assert used <= VARIABLES
    assert {"DIANAQ_BROKER_URL", "DIANAQ_DATA_DIR", "DIANAQ_API_KEY"} <= used


def test_every_variable_of_the_documentation_is_one_that_is_read() -> None:
    text = "".join((ROOT / "docs" / name).read_text() for name in ("workers.md", "operations.md"))
    named = set(re.findall(r"\bDIANAQ_[A-Z_]+\b", text))
    assert named <= VARIABLES
    limits = {name for name in VARIABLES if name.startswith("DIANAQ_CHILD_")}
    assert (
        limits
        | {
            "DIANAQ_LOG_FORMAT",
            "DIANAQ_GPUS",
            "DIANAQ_GPU_JOBS",
            "DIANAQ_CPU_WORKERS",
            "DIANAQ_CGROUP",
            "DIANAQ_PRIORITY_SECONDS",
        }
        <= named
    )


def test_what_must_be_set_is_guarded_and_what_must_be_shared_is_shared() -> None:
    services = COMPOSE["services"]
    assert services["api"]["environment"]["DIANAQ_API_KEY"].startswith("${DIANAQ_API_KEY:?")
    assert services["api"]["volumes"] == services["worker"]["volumes"] == ["data:/data"]
    assert all("healthcheck" in service for service in services.values())
    assert "ports" not in services["redis"]
    assert all(port.startswith("127.0.0.1:") for port in services["api"]["ports"])


def test_postgresql_takes_the_place_of_sqlite_wherever_there_is_a_database() -> None:
    services = POSTGRES["services"]
    assert set(services) == {"postgres", *(n for n, s in COMPOSE["services"].items() if "build" in s)}
    server = services["postgres"]
    for name in ("api", "worker"):
        url = make_url(services[name]["environment"]["DIANAQ_DATABASE_URL"].replace("${", "").replace("?", ""))
        assert (url.drivername, url.host) == ("postgresql+psycopg", "postgres")
        assert (url.username, url.database) == ("dianaq", "dianaq")
        assert set(services[name]["environment"]) <= VARIABLES
        assert services[name]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert (server["environment"]["POSTGRES_USER"], server["environment"]["POSTGRES_DB"]) == ("dianaq", "dianaq")
    assert server["environment"]["POSTGRES_PASSWORD"].startswith("${DIANAQ_POSTGRES_PASSWORD:?")
    assert "ports" not in server
    assert "healthcheck" in server
    assert [mount.split(":")[0] for mount in server["volumes"]] == list(POSTGRES["volumes"])


@pytest.mark.parametrize("name", ["client", "service", "worker", "pyproject.toml", "README.md", "LICENSE"])
def test_what_is_copied_exists_and_is_not_ignored(name: str) -> None:
    assert (ROOT / name).exists()
    assert f"!{name}" in (ROOT / ".dockerignore").read_text().splitlines()
