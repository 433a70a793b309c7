"""`/metrics` has the time that answers took, under labels that clients cannot multiply."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from .conftest import Api

Labels = tuple[str, str, str]


def counts(api: Api) -> dict[Labels, float]:
    families = text_string_to_metric_families(api.client.get("/metrics").text)
    return {
        (sample.labels["route"], sample.labels["method"], sample.labels["status"]): sample.value
        for family in families
        for sample in family.samples
        if sample.name == "dianaq_request_seconds_count"
    }


def test_answers_are_counted_by_route_and_class_of_status(api: Api) -> None:
    job = api.submit()["id"]
    api.client.get(f"/v1/jobs/{job}")
    for number in range(3):
        api.client.get(f"/v1/jobs/job_{number}")
        api.client.get(f"/nowhere/{number}")
        api.client.request(f"MADE{number}", "/v1/jobs")
    found = counts(api)
    assert found["/v1/jobs", "POST", "2xx"] == 1
    assert found["/v1/jobs/{job_id}", "GET", "2xx"] == 1
    assert found["/v1/jobs/{job_id}", "GET", "4xx"] == 3
    assert found["none", "GET", "4xx"] == 3
    assert sum(value for (_, method, _), value in found.items() if method == "other") == 3
    assert not any("job_0" in route or "nowhere" in route for route, _, _ in found)


def test_event_streams_are_left_out_and_their_pages_are_not(api: Api) -> None:
    job = api.submit()["id"]
    api.succeed(job)
    assert api.client.get(f"/v1/jobs/{job}/events/stream").status_code == 200
    assert api.client.get(f"/v1/jobs/{job}/events").status_code == 200
    routes = {route for route, _, _ in counts(api)}
    assert "/v1/jobs/{job_id}/events" in routes
    assert not any("stream" in route for route in routes)
