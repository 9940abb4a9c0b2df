"""Scenario 40: the gate is shut in the panel; nothing is taken at any door, over restarts, and nothing is lost."""

from __future__ import annotations

import pytest
from django.urls import reverse

from batching.models import Flag
from tests.delivery.intake_queue import Broker, state
from tests.scenarios.client import MINI, Client, first_error, new_request
from tests.scenarios.processes import intake, web_server
from tests.wiring.processes import wait_for

pytestmark = pytest.mark.slow

ASKED = {"model": MINI, "input": "Hi"}
MESSAGE = {"model": MINI, "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
DOORS = {
    "/api/requests": new_request("a"),
    "/api/requests/bulk": new_request("a"),
    "/v1/responses": ASKED,
    "/v1/batches": {
        "input_file_id": "file-any", "endpoint": "/v1/responses", "completion_window": "24h",
    },
    "/v1/messages/batches": {"requests": [{"custom_id": "a", "params": MESSAGE}]},
}  # fmt: skip


def switch_on(panel) -> None:
    """Shut the gate as an operator does."""
    path = reverse("admin:batching_flag_add")
    panel.post(path, {"name": Flag.MAINTENANCE, "is_on": "on", "reason": "moving house"})


def switch_off(panel) -> None:
    (flag,) = Flag.objects.all()
    path = reverse("admin:batching_flag_change", args=[flag.pk])
    panel.post(path, {"name": Flag.MAINTENANCE, "reason": "over"})


def refusals(url: str, key: str) -> dict[str, str]:
    """Return what each door answers: its status and, of an error, its code."""
    told = {}
    with Client(url, key) as client:
        for path, body in DOORS.items():
            answer = client.post(path, body)
            said = answer.json()
            code = said["errors"][0]["code"] if "errors" in said else said.get("error", {})
            assert int(answer.headers["Retry-After"]) > 0, path
            told[path] = (
                f"{answer.status_code} {code if isinstance(code, str) else code.get('code', code['type'])}"
            )
    return told


def test_every_door_is_shut_until_it_is_opened_over_a_restart(api, admin_client, tmp_path):
    """Scenario 40. House: a wrong request still hears what is wrong with it, and reading goes on."""
    switch_on(admin_client)
    shut = dict.fromkeys(DOORS, "503 maintenance_mode") | {
        "/v1/messages/batches": "503 api_error"  # Anthropic's word for it
    }
    with web_server(tmp_path / "first") as url:
        assert refusals(url, api.key) == shut
    with web_server(tmp_path / "second") as url, Client(url, api.key) as client:
        assert refusals(url, api.key) == shut
        assert first_error(client.post("/api/requests", {}))["status"] == "422"
        assert client.requests() == []

        switch_off(admin_client)
        wait_for(lambda: client.send("a").ok, timeout_s=45, what="the gate to open")
    assert set(api.states()) == {"a"}


def test_what_was_taken_before_goes_on(api, admin_client, road, receiver):
    """Scenario 40."""
    api.taken("a", to=receiver.url())
    switch_on(admin_client)

    road.run()

    assert receiver.custom_ids() == ["a"]


@pytest.mark.service
def test_messages_wait_in_their_queue_over_a_restart(api, admin_client, own_broker, tmp_path):
    """Scenario 40. House: they are left where they are, which no delivery limit counts."""
    queue = Broker(own_broker.url)
    queue.declare()
    switch_on(admin_client)
    with intake(tmp_path / "first", queue.url, queue.queue):
        wait_for(lambda: state() == "paused", timeout_s=45, what="the pause")
        queue.send(new_request("a"), headers={"x-batcher-project": "ours"})
    with intake(tmp_path / "second", queue.url, queue.queue):
        wait_for(lambda: state() == "paused", timeout_s=45, what="the pause after a restart")
        assert (queue.waiting(), api.requests()) == (1, [])

        switch_off(admin_client)
        wait_for(lambda: api.states() == {"a": "pending"}, timeout_s=45, what="the message")
    assert queue.waiting() == 0
    queue.close()
