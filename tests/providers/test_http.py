"""The HTTP edge over real sockets: deadlines, truncation, compression, flat memory, trust."""

from __future__ import annotations

import gzip
import os
import ssl
import time
import tracemalloc
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from batching.providers.base import ProviderError, Trouble
from batching.providers.http import MAX_JSON_BYTES, Http, Timeouts

SHORT = Timeouts(connect_s=2, silence_s=1, call_s=0.4, transfer_s=0.4)
LONG = Timeouts(connect_s=5, silence_s=20, call_s=30, transfer_s=60)
MEGABYTE = 1024 * 1024


def http_to(url: str, *, timeouts: Timeouts = LONG) -> Http:
    return Http(url, headers={"Authorization": "Bearer key"}, secret="key", timeouts=timeouts)


def failure_of(call, *args, **kwargs) -> ProviderError:
    with pytest.raises(ProviderError) as failure:
        call(*args, **kwargs)
    return failure.value


def answer_with(body: bytes, *headers: tuple[str, str], status: int = 200):
    """Take the request in 64 kB at a time, then answer and hang up."""

    def answer(handler):
        left = int(handler.headers.get("Content-Length", 0))
        while left:
            left -= len(handler.rfile.read(min(left, 65536)))
        handler.send_response(status)
        for name, value in headers or (("Content-Length", str(len(body))),):
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)
        handler.close_connection = True

    return answer


def drip(handler, *, into_headers: bool) -> None:
    """Send a byte every 50 ms, for as long as somebody listens."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    handler.wfile.write(b"X-Drip: " if into_headers else b"Content-Length: 100000\r\n\r\n")
    while not handler.gone.wait(0.05):
        handler.wfile.write(b"a")
        handler.wfile.flush()
    handler.close_connection = True


@pytest.mark.parametrize("into_headers", [True, False], ids=["headers", "body"])
@pytest.mark.parametrize(
    ("method", "trouble"),
    [("get", Trouble.RETRY), ("post", Trouble.UNKNOWN)],
    ids=["read", "effect"],
)
def test_server_that_drips_is_cut_off_at_the_deadline(serve, into_headers, method, trouble):
    http = http_to(serve(lambda handler: drip(handler, into_headers=into_headers)), timeouts=SHORT)
    started = time.monotonic()

    error = failure_of(getattr(http, method), "/batches")

    assert time.monotonic() - started < 3
    assert error.trouble is trouble
    assert "cut off after 0.4 s" in str(error)


def test_body_without_announced_end_is_not_whole_when_the_deadline_cut_it(serve, tmp_path):
    def answer(handler):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        while not handler.gone.wait(0.05):
            handler.wfile.write(b"a\n")

    http = http_to(serve(answer), timeouts=SHORT)

    assert failure_of(http.download, "/f", into=tmp_path / "f").trouble is Trouble.RETRY
    assert list(tmp_path.iterdir()) == []


def test_deadline_covers_a_kept_alive_connection_too(serve):
    asked = []

    def answer(handler):
        asked.append(handler.client_address)
        if len(asked) > 1:
            drip(handler, into_headers=True)
            return
        handler.send_response(200)
        handler.send_header("Content-Length", "2")
        handler.end_headers()
        handler.wfile.write(b"{}")

    http = http_to(serve(answer), timeouts=SHORT)
    http.get("/first")

    error = failure_of(http.get, "/second")

    assert "cut off" in str(error)
    assert asked[0] == asked[1]


def test_connection_dropped_after_the_request_leaves_doubt(serve):
    def answer(handler):
        handler.rfile.read(int(handler.headers["Content-Length"]))
        handler.close_connection = True

    error = failure_of(http_to(serve(answer)).post, "/batches", {"a": 1})

    assert error.trouble is Trouble.UNKNOWN


def test_effect_is_asked_for_once_whatever_the_server_answers(serve):
    asked = []

    def answer(handler):
        asked.append(handler.path)
        answer_with(b"", ("Content-Length", "0"), ("Retry-After", "0"), status=503)(handler)

    failure_of(http_to(serve(answer)).post, "/batches", {})

    assert asked == ["/v1/batches"]


def test_proof_of_an_earlier_call_does_not_count_for_this_one(serve):
    def answer(handler):
        handler.close_connection = True

    url = serve(answer)
    try:
        http_to("http://127.0.0.1:1").get("/batches")
    except ProviderError:
        error = failure_of(http_to(url).post, "/batches", {})

    assert error.trouble is Trouble.UNKNOWN


def test_unknown_host_proves_that_nothing_was_sent():
    error = failure_of(http_to("http://no-such-host.invalid/v1").post, "/batches", {})

    assert error.trouble is Trouble.RETRY


@pytest.mark.parametrize(
    "headers",
    [
        [("Content-Length", "1000")],
        [("Transfer-Encoding", "chunked")],
        [("Content-Encoding", "gzip"), ("Connection", "close")],
        [("Content-Encoding", "br"), ("Connection", "close")],
    ],
    ids=["length", "chunked", "gzip", "unknown encoding"],
)
def test_download_that_is_not_whole_leaves_nothing_behind(serve, tmp_path, headers):
    body = gzip.compress(os.urandom(500))[:-9]
    if ("Transfer-Encoding", "chunked") in headers:
        body = b"fff\r\n" + body
    into = tmp_path / "answers.jsonl"
    into.write_bytes(b"older")

    error = failure_of(http_to(serve(answer_with(body, *headers))).download, "/f", into=into)

    assert error.trouble is Trouble.RETRY
    assert [each.name for each in tmp_path.iterdir()] == ["answers.jsonl"]
    assert into.read_bytes() == b"older"


def test_compressed_download_is_stored_unpacked(serve, tmp_path):
    body = gzip.compress(b"one\n") + gzip.compress(b"two\n")
    headers = [("Content-Encoding", "gzip"), ("Content-Length", str(len(body)))]
    into = tmp_path / "answers.jsonl"

    size = http_to(serve(answer_with(body, *headers))).download("/f", into=into)

    assert (size, into.read_bytes()) == (8, b"one\ntwo\n")


def test_full_disk_is_not_taken_for_the_providers_fault(serve, tmp_path):
    into = tmp_path / "missing folder" / "answers.jsonl"

    with pytest.raises(OSError, match="missing folder"):
        http_to(serve(answer_with(b"x"))).download("/f", into=into)


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip bomb"])
def test_endless_json_answer_is_given_up(serve, packed):
    body = b'"' + b" " * (MAX_JSON_BYTES * 6) + b'"'
    body = gzip.compress(body, 1) if packed else body
    headers = [("Content-Length", str(len(body)))] + [("Content-Encoding", "gzip")] * packed
    url = serve(answer_with(body, *headers))

    tracemalloc.start()
    error = failure_of(http_to(url).get, "/batches")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert error.trouble is Trouble.RETRY
    assert peak < 4 * MAX_JSON_BYTES


def test_big_file_goes_up_and_comes_down_in_flat_memory(serve, tmp_path):
    size = 48 * MEGABYTE
    source, into = tmp_path / "input.jsonl", tmp_path / "output.jsonl"
    with source.open("wb") as file:
        file.truncate(size)
    received = []

    def answer(handler):
        if handler.command == "POST":
            received.append(int(handler.headers["Content-Length"]))
            return answer_with(b"{}")(handler)
        handler.send_response(200)
        handler.send_header("Content-Length", str(size))
        handler.end_headers()
        for _ in range(48):
            handler.wfile.write(bytes(MEGABYTE))
        return None

    http = http_to(serve(answer))
    tracemalloc.start()
    http.post_file("/files", source, filename="input.jsonl", fields={"purpose": "batch"})
    fetched = http.download("/files/1/content", into=into)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert received[0] > size
    assert fetched == into.stat().st_size == size
    assert peak < 8 * MEGABYTE


def test_environment_has_no_say(serve, monkeypatch, tmp_path):
    seen = []

    def answer(handler):
        seen.append(handler.headers["Authorization"])
        answer_with(b"{}")(handler)

    url = serve(answer)
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login someone password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    http_to(url).get("/models")

    assert seen == ["Bearer key"]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "provider.test",
        "ftp://a/",
        "http://",
        "https://me:pw@a/v1",
        "https://a/v1?x=1",
        "http://a:b/",
    ],
)
def test_base_url_that_cannot_work_is_refused_at_once(url):
    assert failure_of(http_to, url).trouble is Trouble.CREDENTIALS


@pytest.mark.parametrize("key", ["sk-a\nb", "schlüssel", " sk-a", "sk-a\n"])
def test_key_that_no_header_carries_is_refused_at_once(key):
    error = failure_of(Http, "http://a/", headers={}, secret=key, timeouts=LONG)

    assert error.trouble is Trouble.CREDENTIALS
    assert key not in str(error)


def test_local_file_that_is_missing_is_an_error_of_the_disk():
    with pytest.raises(FileNotFoundError):
        http_to("http://127.0.0.1:1").post_file("/f", Path("/nowhere"), filename="f", fields={})


@pytest.fixture
def self_signed(tmp_path) -> ssl.SSLContext:
    """A server's TLS with a certificate that nobody vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "server.pem"
    plain = serialization.NoEncryption()
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


def test_certificate_that_nobody_vouches_for_stops_the_call_before_the_key_is_sent(
    serve, self_signed
):
    asked = []
    url = serve(lambda handler: asked.append(handler.path), tls=self_signed)

    error = failure_of(http_to(url).post, "/batches", {})

    assert error.trouble is Trouble.RETRY
    assert "certificate not trusted" in str(error)
    assert asked == []


def test_handshake_that_drips_is_cut_off_at_the_deadline(serve):
    def answer_in_place_of_a_handshake(handler):
        handler.wfile.write(b"\x16\x03\x03\x40\x00")
        while not handler.gone.wait(0.05):
            handler.wfile.write(b"\x00")

    url = serve(answer_in_place_of_a_handshake, raw=True).replace("http:", "https:")

    assert "cut off after 0.4 s" in str(failure_of(http_to(url, timeouts=SHORT).get, "/models"))
