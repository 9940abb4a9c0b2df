"""What docs/webhooks.md tells receivers to do, done with messages that were really sent."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
from django.conf import settings
from django.utils import timezone
from standardwebhooks.webhooks import WebhookVerificationError

from batching.models.projects import new_signing_secret
from delivery import dispatch, retry
from tests.batching.rows import a_destination
from tests.delivery.receivers import answering
from tests.delivery.results import a_result, listening

pytestmark = pytest.mark.django_db(transaction=True)

PAGE = Path(settings.BASE_DIR, "docs", "webhooks.md").read_text(encoding="utf-8")


def snippet(language, holding):
    """Return the one block of the page in this language that holds these words."""
    blocks = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    (found,) = [block for block in blocks if holding in block]
    return found


@pytest.fixture
def sent(settings):
    """A message as it came to its receiver, signed with a new secret and the one before it."""
    settings.BATCHER_ALLOW_PRIVATE_DESTINATIONS = ["127.0.0.0/8"]
    now = timezone.now()
    with listening(answering("200 OK")) as receiver:
        place = a_destination(
            url=receiver.url("/hook?x=1"),
            secret=new_signing_secret(),
            previous_secret=new_signing_secret(),
            previous_secret_until=now + timedelta(hours=1),
        )
        a_result(place, custom_id="Zürich 1", due_at=now - timedelta(seconds=1))
        assert dispatch.send_due() == 1
    (request,) = receiver.requests
    return place, request


def test_python_verifies_both_signatures_and_nothing_else(sent):
    place, request = sent
    defined = {}
    exec(snippet("python", "Webhook"), defined)  # noqa: S102  # our own page
    verified = defined["verified"]

    for secret in (place.secret, place.previous_secret):
        assert verified(secret, request.headers, request.body)["custom_id"] == "Zürich 1"
    for secret, body in (
        (new_signing_secret(), request.body),
        (place.secret, request.body + b" "),
    ):
        with pytest.raises(WebhookVerificationError):
            verified(secret, request.headers, body)


@pytest.fixture
def in_node(tmp_path):
    """Call the page's JavaScript with a secret, headers, a body and a time."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    script = tmp_path / "verify.js"
    call = (
        'const given = JSON.parse(require("fs").readFileSync(0));'
        'const body = Buffer.from(given.body, "hex");'
        "console.log(isOurs(given.secret, given.headers, body, given.now));"
    )
    script.write_text(snippet("js", "isOurs") + call, encoding="utf-8")

    def is_ours(secret, headers, body, now):
        given = {"secret": secret, "headers": headers, "body": body.hex(), "now": now}
        done = subprocess.run(
            [node, script], input=json.dumps(given), capture_output=True, text=True, check=True
        )
        return done.stdout.strip() == "true"

    return is_ours


def test_node_verifies_both_signatures_and_nothing_else(sent, in_node):
    place, request = sent
    now = int(request.headers["webhook-timestamp"])
    headers, body = request.headers, request.body

    assert in_node(place.secret, headers, body, now)
    assert in_node(place.previous_secret, headers, body, now + 299)
    assert not in_node(new_signing_secret(), headers, body, now)
    assert not in_node(place.secret, headers, body + b" ", now)
    assert not in_node(place.secret, headers, body, now + 301)
    assert not in_node(place.secret, headers | {"webhook-id": "req_other-1"}, body, now)
    assert not in_node(place.secret, headers | {"webhook-signature": "v1 v2,x v1,"}, body, now)


def test_openssl_computes_what_stands_behind_v1(sent, tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    place, request = sent
    (tmp_path / "body").write_bytes(request.body)
    given = request.headers["webhook-signature"].split(" ")

    for secret, signature in zip((place.secret, place.previous_secret), given, strict=True):
        known = {"SECRET": secret, "ID": request.headers["webhook-id"]}
        known["TIMESTAMP"] = request.headers["webhook-timestamp"]
        done = subprocess.run(
            ["sh", "-c", snippet("sh", "openssl dgst")],
            env=known | {"PATH": "/usr/bin:/bin"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        assert f"v1,{done.stdout.strip()}" == signature


def test_the_page_names_each_header_that_came(sent):
    _, request = sent
    ours = [name for name in request.headers if name.startswith(("webhook-", "x-", "idempotency"))]

    assert len(ours) == 6
    assert [name for name in ours if f"`{name}`" not in PAGE] == []


def test_the_page_has_the_schedule_that_holds():
    waits = re.search(r"^\| waits \|(.+)\|$", PAGE, re.MULTILINE)[1].split("|")
    units = {"": 1, "s": 1, "min": 60, "h": 3600}
    words = [[*wait.split(), ""][:2] for wait in waits]

    assert [int(n) * units[unit] for n, unit in words] == list(retry.DEFAULT_DELAYS_S)
