"""Every way in, so that one table of faults can be tried at each: what is sent, and what became of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from django.utils import timezone

from batching import clientbatch
from batching.models import Account
from delivery.intake_messages import Arrived, read
from delivery.intake_storing import Read, store

HI = b'"model":"gpt-4o-mini","input":"Hi"'
HI_CLAUDE = b'"model":"claude-haiku-4-5","max_tokens":9,"messages":[]'


@dataclass(frozen=True)
class Told:
    """What a door said; ``status`` is that of the call which carried the request, 0 without one."""

    is_taken: bool
    status: int = 0
    where: str = ""
    words: str = ""


TAKEN = Told(is_taken=True)


def request(body: bytes, custom_id: bytes = b'"a"') -> bytes:
    """Return a request as bytes; ``custom_id`` is a JSON value."""
    return (
        b'{"custom_id":%b,"url":"/v1/responses","method":"POST","body":%b,'
        b'"delivery_config":{"type":"none"}}' % (custom_id, body)
    )


def of_openai(member: bytes) -> bytes:
    """Return a body with one more member."""
    return b"{%b%b}" % (HI, member and b"," + member)


def of_anthropic(member: bytes) -> bytes:
    return b"{%b%b}" % (HI_CLAUDE, member and b"," + member)


def at_request(api, member, custom_id=b'"a"') -> Told:
    answer = api.post("/api/requests", request(of_openai(member), custom_id))
    if answer.status_code == 202:
        return TAKEN
    (error,) = answer.json()["errors"]
    return Told(
        False, answer.status_code, error.get("source", {}).get("pointer", ""), error["detail"]
    )


def at_bulk(api, member, custom_id=b'"a"') -> Told:
    lines = request(of_openai(b""), b'"before"') + b"\n" + request(of_openai(member), custom_id)
    answer = api.post("/api/requests/bulk", lines, "application/x-ndjson")
    told = answer.json()
    if told["accepted"] == 2:
        return TAKEN
    (error,) = told["errors"]
    assert (told["accepted"], error["line"]) == (1, 2)
    return Told(False, answer.status_code, error["pointer"], error["detail"])


def upload(api, content: bytes) -> str:
    """Upload a batch file and return its id."""
    form = (
        b'--cut\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        b'--cut\r\nContent-Disposition: form-data; name="file"; filename="in.jsonl"\r\n\r\n'
        b"%b\r\n--cut--\r\n" % content
    )
    answer = api.post("/v1/files", form, "multipart/form-data; boundary=cut")
    assert answer.status_code == 200, answer.content
    return answer.json()["id"]


def new_batch(file_id: str) -> dict[str, str]:
    return {"input_file_id": file_id, "endpoint": "/v1/responses", "completion_window": "24h"}


def at_batch(api, member, custom_id=b'"a"') -> Told:
    made = api.post("/v1/batches", new_batch(upload(api, request(of_openai(member), custom_id))))
    assert made.status_code == 200, made.content
    clientbatch.read_due(timezone.now())
    seen = api.get(f"/v1/batches/{made.json()['id']}").json()
    if seen["status"] == "in_progress":
        return TAKEN
    (error,) = seen["errors"]["data"]
    assert (seen["status"], error["line"]) == ("failed", 1)
    return Told(False, 200, (error["param"] or "").replace(".", "/"), error["message"])


def messages(*asked: bytes) -> bytes:
    return b'{"requests":[%b]}' % b",".join(asked)


def asked(member: bytes, custom_id: bytes = b'"a"') -> bytes:
    return b'{"custom_id":%b,"params":%b}' % (custom_id, of_anthropic(member))


def at_messages(api, member, custom_id=b'"a"') -> Told:
    answer = api.post("/v1/messages/batches", messages(asked(member, custom_id)))
    if answer.status_code == 200:
        clientbatch.read_due(timezone.now())
        return TAKEN
    words = answer.json()["error"]["message"]
    return Told(False, answer.status_code, words.partition(":")[0].replace(".", "/"), words)


def at_call(api, member, custom_id=b'"a"') -> Told:
    named = {"X-Batcher-Custom-Id": json.loads(custom_id), "Prefer": "respond-async"}
    answer = api.post("/v1/responses", of_openai(member), **named)
    if answer.status_code == 202:
        return TAKEN
    error = answer.json()["error"]
    return Told(
        False, answer.status_code, (error["param"] or "").replace(".", "/"), error["message"]
    )


def arrive(*bodies: bytes):
    """Store messages of the RabbitMQ intake; return the verdict of each."""
    came = [
        Read(message=Arrived(body=body, project="ours"), contents=read(body)) for body in bodies
    ]
    return store("in", came, now=timezone.now())


def at_queue(_api, member, custom_id=b'"a"') -> Told:
    (verdict,) = arrive(request(of_openai(member), custom_id))
    if not verdict.faults:
        return TAKEN
    (fault,) = verdict.faults
    return Told(False, 0, fault.pointer, fault.detail)


DOORS: dict[str, Callable[..., Told]] = {
    "request": at_request,
    "bulk": at_bulk,
    "batch": at_batch,
    "messages": at_messages,
    "call": at_call,
    "queue": at_queue,
}


def an_anthropic_account() -> None:
    Account.objects.create(
        name="claude", kind=Account.Kind.SANDBOX_ANTHROPIC, base_url="http://127.0.0.1:9"
    )
