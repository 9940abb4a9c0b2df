"""Files and uploads of clients, through the official SDK."""

from __future__ import annotations

import hashlib
import io
import json
import os

import openai
import pytest
import requests
from django.conf import settings
from django.contrib.auth.models import Group, Permission, User
from django.utils import timezone

from batching import clientfiles
from batching.api.openai.urls import ROUTES
from batching.models import ClientFile, Lane, Submission, UploadPart
from tests.front_door.conftest import line

pytestmark = pytest.mark.django_db(transaction=True)
HOUR = 3_600


def on_disk():
    folder = settings.DATA_DIR / "files"
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def get(door, path, **headers):
    key = door.sdk.api_key
    return requests.get(
        f"{door.sdk.base_url}{path}",
        headers={"Authorization": f"Bearer {key}", **headers},
        timeout=30,
    )


def test_a_file_comes_back_as_it_was_sent(door):
    sent = os.urandom(3_000_000) + b"\r\n--\r\n\r"

    file = door.sdk.files.create(file=("Zürich.bin", sent), purpose="user_data")

    assert door.sdk.files.content(file.id).read() == sent
    assert (file.bytes, file.filename, file.purpose) == (len(sent), "Zürich.bin", "user_data")
    assert (file.object, file.status, file.expires_at) == ("file", "processed", None)
    assert ClientFile.objects.get().sha256 == hashlib.sha256(sent).hexdigest()
    assert door.sdk.files.retrieve(file.id) == file


def test_a_batch_file_is_kept_thirty_days_and_another_as_long_as_asked(door):
    for_batch = door.upload(line("a"))
    short = door.upload(line("a"), expires_after={"anchor": "created_at", "seconds": HOUR})

    assert for_batch.expires_at - for_batch.created_at == 30 * 24 * HOUR
    assert short.expires_at - short.created_at == HOUR


def test_an_expired_file_is_gone_and_its_bytes_with_it(door, road):
    file = door.upload(line("a"), expires_after={"anchor": "created_at", "seconds": HOUR})
    assert file.id in on_disk()

    road.later(seconds=HOUR + 1)

    with pytest.raises(openai.NotFoundError):
        door.sdk.files.retrieve(file.id)
    assert clientfiles.sweep(timezone.now()) == 1
    assert file.id not in on_disk()


def test_a_deleted_file_is_gone(door):
    file = door.upload(line("a"))

    gone = door.sdk.files.delete(file.id)

    assert (gone.id, gone.deleted) == (file.id, True)
    with pytest.raises(openai.NotFoundError) as missing:
        door.sdk.files.retrieve(file.id)
    assert missing.value.body["message"] == f"No such File object: {file.id}"
    assert file.id not in on_disk()


def test_files_are_listed_by_purpose_in_both_orders_a_page_at_a_time(door):
    ids = [door.upload(line("a")).id for _ in range(3)]
    other = door.sdk.files.create(file=("x.txt", b"x"), purpose="user_data").id

    assert [file.id for file in door.sdk.files.list()] == [other, *ids[::-1]]
    assert [file.id for file in door.sdk.files.list(purpose="batch", order="asc")] == ids
    assert [file.id for file in door.sdk.files.list(purpose="batch", limit=1)] == ids[::-1]
    assert door.sdk.files.list(limit=2).has_more


@pytest.mark.parametrize(
    ("asked", "status", "start", "end"),
    [
        pytest.param("bytes=0-9", 206, 0, 10, id="head"),
        pytest.param("bytes=90-", 206, 90, 100, id="tail"),
        pytest.param("bytes=-5", 206, 95, 100, id="suffix"),
        pytest.param("bytes=50-5000", 206, 50, 100, id="past the end"),
        pytest.param("bytes=0-1,5-6", 200, 0, 100, id="several"),
        pytest.param("lines=1-2", 200, 0, 100, id="other unit"),
        pytest.param("bytes=100-", 416, 0, 0, id="outside"),
    ],
)
def test_a_part_of_a_file_can_be_asked_for(door, asked, status, start, end):
    sent = bytes(range(100))
    file = door.sdk.files.create(file=("x.bin", sent), purpose="user_data")

    answer = get(door, f"files/{file.id}/content", Range=asked)

    assert answer.status_code == status
    if status == 416:
        assert answer.headers["content-range"] == "bytes */100"
        return
    assert answer.content == sent[start:end]
    if status == 206:
        assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/100"


def test_a_part_of_a_batchs_output_can_be_asked_for(door, finish):
    batch = finish(door.create(*(line(f"r-{n}") for n in range(5))))
    path = f"files/{batch.output_file_id}/content"
    whole = get(door, path).content

    middle = get(door, path, Range="bytes=100-1299")

    assert (middle.status_code, middle.content) == (206, whole[100:1300])
    assert middle.headers["content-range"] == f"bytes 100-1299/{len(whole)}"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        pytest.param({}, "purpose", id="no purpose"),
        pytest.param({"purpose": "fun"}, "purpose", id="no such purpose"),
        pytest.param(
            {
                "purpose": "batch",
                "expires_after[anchor]": "created_at",
                "expires_after[seconds]": "9",
            },
            "expires_after.seconds",
            id="too short",
        ),
    ],
)
def test_a_wrong_form_is_refused_and_leaves_nothing(door, fields, param):
    before = on_disk()
    answer = requests.post(
        f"{door.sdk.base_url}files",
        data=fields,
        files={"file": ("in.jsonl", b"{}")},
        headers={"Authorization": f"Bearer {door.sdk.api_key}"},
        timeout=30,
    )

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert (on_disk(), ClientFile.objects.count()) == (before, 0)


def test_a_form_that_breaks_off_leaves_nothing(door):
    before = on_disk()
    answer = requests.post(
        f"{door.sdk.base_url}files",
        data=b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\nabc',
        headers={
            "Authorization": f"Bearer {door.sdk.api_key}",
            "Content-Type": "multipart/form-data; boundary=b",
        },
        timeout=30,
    )

    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert (answer.status_code, on_disk()) == (400, before)


def test_a_file_may_come_in_parts_in_any_order(door):
    pieces = [os.urandom(70_000), os.urandom(50_000)]
    whole = b"".join(pieces)
    md5 = hashlib.md5(whole, usedforsecurity=False)
    upload = door.sdk.uploads.create(
        bytes=len(whole), filename="in.jsonl", mime_type="application/jsonl", purpose="batch"
    )
    assert (upload.status, upload.expires_at - upload.created_at) == ("pending", HOUR)
    second = door.sdk.uploads.parts.create(upload.id, data=pieces[1])
    first = door.sdk.uploads.parts.create(upload.id, data=pieces[0])
    assert (first.object, first.upload_id) == ("upload.part", upload.id)

    upload = door.sdk.uploads.complete(
        upload.id, part_ids=[first.id, second.id], md5=md5.hexdigest()
    )

    assert upload.status == "completed"
    assert (upload.file.purpose, upload.file.bytes) == ("batch", len(whole))
    assert door.sdk.files.content(upload.file.id).read() == whole
    assert not UploadPart.objects.exists()
    assert not on_disk() & {first.id, second.id}


def test_the_sdks_own_chunked_upload_works(door):
    sent = os.urandom(300_000)

    upload = door.sdk.uploads.upload_file_chunked(
        file=sent,
        filename="big.jsonl",
        bytes=len(sent),
        mime_type="application/jsonl",
        purpose="batch",
        part_size=100_000,
    )

    assert door.sdk.files.content(upload.file.id).read() == sent


@pytest.mark.parametrize(
    ("change", "param"),
    [
        pytest.param({"part_ids": []}, "part_ids", id="too few bytes"),
        pytest.param({"part_ids": ["part_none"]}, "part_ids", id="no such part"),
        pytest.param({"md5": "0" * 32}, "md5", id="other checksum"),
    ],
)
def test_an_upload_that_does_not_add_up_stays_open(door, change, param):
    upload = door.sdk.uploads.create(
        bytes=3, filename="x", mime_type="text/plain", purpose="user_data"
    )
    part = door.sdk.uploads.parts.create(upload.id, data=b"abc")

    with pytest.raises(openai.BadRequestError) as refused:
        door.sdk.uploads.complete(upload.id, **{"part_ids": [part.id], **change})

    assert refused.value.param == param
    assert door.sdk.uploads.complete(upload.id, part_ids=[part.id]).status == "completed"


def test_an_upload_ends_when_it_is_cancelled_or_after_an_hour(door, road):
    def new():
        return door.sdk.uploads.create(
            bytes=3, filename="x", mime_type="text/plain", purpose="user_data"
        )

    given_up, forgotten = new(), new()
    part = door.sdk.uploads.parts.create(forgotten.id, data=b"abc")
    assert door.sdk.uploads.cancel(given_up.id).status == "cancelled"

    road.later(seconds=HOUR + 1)

    for upload in (given_up, forgotten):
        with pytest.raises(openai.BadRequestError, match="The upload is"):
            door.sdk.uploads.parts.create(upload.id, data=b"abc")
    clientfiles.sweep(timezone.now())
    assert part.id not in on_disk()


def test_models_are_those_that_requests_were_sent_to(door, account):
    Lane.objects.create(account=account, model="m/1", endpoint="/v1/responses")
    Lane.objects.create(account=account, model="m/1", endpoint="/v1/embeddings")

    assert [model.id for model in door.sdk.models.list()] == ["m/1"]
    assert door.sdk.models.retrieve("m/1").object == "model"
    with pytest.raises(openai.NotFoundError) as missing:
        door.sdk.models.retrieve("m/2")
    assert missing.value.code == "model_not_found"


def test_a_wrong_key_is_told_in_openais_words(door):
    stranger = openai.OpenAI(base_url=door.sdk.base_url, api_key="sk-wrong", max_retries=0)

    with pytest.raises(openai.AuthenticationError) as refused, stranger:
        stranger.files.list()

    assert set(refused.value.body) == {"message", "type", "param", "code"}
    assert refused.value.code == "invalid_api_key"


def test_a_key_that_may_only_read_uploads_nothing(door_of):
    reader = door_of("ours", scopes=["read"])

    with pytest.raises(openai.PermissionDeniedError):
        reader.upload(line("a"))


@pytest.mark.parametrize(
    "path", ["nothing", "files/file-none", "batches/batch_none", "uploads/x/y"]
)
def test_what_is_not_there_has_openais_error_too(door, path):
    answer = get(door, path)

    assert answer.status_code == 404
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_a_bad_body_is_told(door):
    answer = requests.post(
        f"{door.sdk.base_url}batches",
        data=io.BytesIO(b"{nope"),
        headers={"Authorization": f"Bearer {door.sdk.api_key}"},
        timeout=30,
    )

    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
    assert json.dumps(answer.json())


def test_every_path_of_the_door_has_a_guard():
    for route in ROUTES:
        for method, operation in route.operations.items():
            assert operation.scope, f"{method} {route.path}"


def test_an_operator_sees_files_and_batches_but_not_their_content(door, finish, client):
    batch = finish(door.create(line("a", "A secret prompt")))
    viewer = User.objects.create_user("viewer", password="x", is_staff=True)
    viewer.groups.add(Group.objects.get_or_create(name="viewer")[0])
    viewer.user_permissions.add(Permission.objects.get(codename="view_submission"))
    client.force_login(viewer)

    files = client.get("/admin/batching/clientfile/").content.decode()
    row = ClientFile.objects.get(key=batch.input_file_id)
    file = client.get(f"/admin/batching/clientfile/{row.pk}/change/").content.decode()
    shown = client.get(f"/admin/batching/submission/{Submission.objects.get().pk}/change/")

    assert batch.input_file_id in files
    assert batch.output_file_id in files
    assert (row.sha256 in file, "secret" in file) == (True, False)
    assert shown.status_code == 200
