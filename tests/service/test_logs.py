"""Logs for machines: every line is a JSON object that says which request or attempt it belongs to."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from io import StringIO
from typing import Any

import pytest

from dianaq.errors import InvalidSpec
from dianaq_service import logs
from dianaq_service.settings import Settings
from dianaq_service.web import deps

from .conftest import Api


class Lines:
    def __init__(self) -> None:
        self.stream = StringIO()

    def read(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]


@pytest.fixture
def lines() -> Iterator[Lines]:
    """What the service logs in this process."""
    lines = Lines()
    handler = logging.StreamHandler(lines.stream)
    handler.setFormatter(logs.JsonFormatter({"part": "test"}))
    logger = logging.getLogger("dianaq_service")
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)
    logger.setLevel(level)


def test_a_record_is_one_line_with_what_is_bound(lines: Lines) -> None:
    log = logging.getLogger("dianaq_service.some")
    with logs.bound(job_id="job_a"), logs.bound(attempt=2):
        log.info("two\nlines of %s", "text")
    log.warning("after")
    first, second = lines.read()
    assert first.pop("time").endswith("+00:00")
    assert first == {
        "level": "info",
        "logger": "dianaq_service.some",
        "message": "two\nlines of text",
        "part": "test",
        "job_id": "job_a",
        "attempt": 2,
    }
    assert "job_id" not in second


def test_records_of_a_request_carry_its_id(api: Api, lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    log = logging.getLogger("dianaq_service.elsewhere")

    def broken(*_: object) -> None:
        # In a thread of its own, as the function is a plain one.
        log.info("deep inside")
        raise RuntimeError("nobody foresaw this")

    monkeypatch.setattr(deps, "owner_of", broken)
    for number in range(2):
        response = api.client.get("/v1/jobs", headers={"X-Request-ID": f"mine-{number}"})
        assert response.status_code == 500
    found = lines.read()
    assert [line["request_id"] for line in found] == ["mine-0", "mine-0", "mine-1", "mine-1"]
    assert found[0]["message"] == "deep inside"
    assert "nobody foresaw this" in found[1]["exception"]
    assert "Traceback" in found[1]["exception"]
    assert "Traceback" not in found[1]["message"]


PROCESS = """
import logging, threading, warnings
from dianaq_service import logs
logs.configure("json", logging.INFO, job_id="job_a", attempt=1)
def work():
    logging.getLogger("library").info("in a thread")
    raise ValueError("in a thread")
thread = threading.Thread(target=work)
thread.start()
thread.join()
warnings.warn("careful", stacklevel=1)
raise KeyError("at last")
"""


def test_all_that_a_process_logs_is_json_and_names_the_attempt() -> None:
    result = subprocess.run([sys.executable, "-c", PROCESS], capture_output=True, text=True, timeout=60, check=False)
    found = [json.loads(line) for line in result.stderr.splitlines()]
    assert [line["level"] for line in found] == ["info", "critical", "warning", "critical"]
    assert {(line["job_id"], line["attempt"]) for line in found} == {("job_a", 1)}
    assert "ValueError: in a thread" in found[1]["exception"]
    assert "careful" in found[2]["message"]
    assert "KeyError: 'at last'" in found[3]["exception"]
    assert result.returncode == 1


def test_the_format_is_one_that_there_is() -> None:
    environ = {"DIANAQ_DATA_DIR": "/data", "DIANAQ_LOG_FORMAT": "xml"}
    with pytest.raises(InvalidSpec, match="plain or json, got 'xml'") as caught:
        Settings.from_env(environ)
    assert caught.value.param == "DIANAQ_LOG_FORMAT"
    assert Settings.from_env({**environ, "DIANAQ_LOG_FORMAT": "json"}).log_format == "json"
