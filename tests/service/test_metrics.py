"""`/metrics` counts what happened, in the format of Prometheus, and takes a key."""

from __future__ import annotations

from datetime import timedelta

from databases import ON_BOTH
from prometheus_client.parser import text_string_to_metric_families

from dianaq_service.counters import observe
from dianaq_service.database import JobRow
from dianaq_service.database.tables import now

from .conftest import Api

pytestmark = ON_BOTH


def scrape(api: Api) -> dict[tuple[str, str], float]:
    """Values by name and the value of the label."""
    response = api.client.get("/metrics")
    assert response.status_code == 200, response.text
    families = text_string_to_metric_families(response.text)
    return {
        (sample.name, ",".join(sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
    }


def test_jobs_and_the_age_of_the_queue(api: Api) -> None:
    assert scrape(api)["dianaq_queue_age_seconds", ""] == 0
    done, waiting = api.submit()["id"], api.submit()["id"]
    api.put_in_state(done, "running", losses=2)
    api.put_in_state(done, "succeeded")
    with api.services.database.write() as session:
        session.get_one(JobRow, waiting).created = now() - timedelta(hours=1)
    found = scrape(api)
    assert found["dianaq_jobs", "queued"] == found["dianaq_jobs", "succeeded"] == 1
    assert (found["dianaq_jobs", "failed"], found["dianaq_attempts_lost", ""]) == (0, 2)
    assert found["dianaq_queue_age_seconds", ""] >= 3600
    assert (found["dianaq_job_moves_total", "queued"], found["dianaq_job_moves_total", "running"]) == (2, 1)
    api.client.delete(f"/v1/jobs/{done}")
    assert scrape(api)["dianaq_job_moves_total", "running"] == 1


def test_histograms_add_up(api: Api) -> None:
    with api.services.database.write() as session:
        observe(session, "stage_seconds", "float", 5)
        observe(session, "stage_seconds", "float", 1e9)
        observe(session, "step_seconds", "float", 0.25, 4)
    found = scrape(api)
    assert found["dianaq_stage_seconds_bucket", "1,float"] == 0
    assert found["dianaq_stage_seconds_bucket", "10,float"] == 1
    assert found["dianaq_stage_seconds_count", "float"] == 2
    assert (found["dianaq_step_seconds_count", "float"], found["dianaq_step_seconds_sum", "float"]) == (4, 1)


def test_it_takes_a_key_and_names_nobody(api: Api) -> None:
    api.submit()
    assert "alice" not in api.client.get("/metrics").text
    assert api.client.get("/metrics", headers={"Authorization": ""}).status_code == 401
