"""/v1/files: upload streamed to disk, list, retrieve, content, delete.

Handlers only; the shapes are in objects.py, the checks in checks.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import BodyPartReader, web

from sandbox import checks
from sandbox.engine import Engine
from sandbox.errors import ApiError, missing_parameter
from sandbox.objects import StoredFile, file_object, list_object
from sandbox.replies import ENGINE, reply
from sandbox.store import new_file_id

_BATCH_KEPT_S = 30 * 24 * 3600
_LARGEST_BYTES = 512 * 1024 * 1024
_LONGEST_FIELD_BYTES = 4096
_CHUNK_BYTES = 1 << 18


@dataclass(kw_only=True)
class _Upload:
    """What came in one multipart body; the file's bytes are already on disk."""

    path: Path
    fields: dict[str, str] = field(default_factory=dict)
    filename: str | None = None
    size_bytes: int = 0


async def create(request: web.Request) -> web.Response:
    """``POST /v1/files``."""
    engine = request.app[ENGINE]
    file_id = new_file_id()
    upload = _Upload(path=engine.store.path(f"{file_id}.part"))
    try:
        await _receive(request, upload)
        file = _file(engine, file_id, upload)
        upload.path.rename(engine.store.path(file_id))
    finally:
        upload.path.unlink(missing_ok=True)
    engine.store.add_file(file)
    return reply(file_object(file))


async def index(request: web.Request) -> web.Response:
    """``GET /v1/files``."""
    engine = request.app[ENGINE]
    limit = checks.limit(request, default=10_000, most=10_000)
    page = engine.store.file_page(
        engine.clock.now(),
        purpose=request.query.get("purpose"),
        after=request.query.get("after"),
        limit=limit + 1,
        ascending=checks.order(request),
    )
    shown = [file_object(file) for file in page[:limit]]
    return reply(list_object(shown, has_more=len(page) > limit))


async def retrieve(request: web.Request) -> web.Response:
    """``GET /v1/files/{id}``."""
    return reply(file_object(_find(request)))


async def content(request: web.Request) -> web.StreamResponse:
    """``GET /v1/files/{id}/content``."""
    file = _find(request)
    headers = {
        "content-type": "application/octet-stream",
        "content-disposition": f'attachment; filename="{_header_safe(file.filename)}"',
    }
    return web.FileResponse(request.app[ENGINE].store.path(file.id), headers=headers)


async def delete(request: web.Request) -> web.Response:
    """``DELETE /v1/files/{id}``."""
    file = _find(request)
    request.app[ENGINE].store.delete_file(file.id)
    return reply({"id": file.id, "object": "file", "deleted": True})


def _find(request: web.Request) -> StoredFile:
    engine, file_id = request.app[ENGINE], request.match_info["file_id"]
    file = engine.store.file(file_id, engine.clock.now())
    if file is None:
        raise ApiError(404, f"No such File object: {file_id}", param="id")
    return file


async def _receive(request: web.Request, upload: _Upload) -> None:
    if not request.content_type.startswith("multipart/"):
        raise ApiError(400, "Expected a multipart/form-data body.")
    try:
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader):
                raise ApiError(400, "Nested multipart bodies are not taken.")
            if part.name == "file":
                upload.filename = part.filename or "upload"
                await _receive_file(part, upload)
            elif part.name is not None:
                upload.fields[part.name] = await _receive_field(part)
    except ValueError as error:
        raise ApiError(400, f"The multipart body can't be read: {error}") from error


async def _receive_file(part: BodyPartReader, upload: _Upload) -> None:
    with upload.path.open("wb") as file:
        while chunk := await part.read_chunk(_CHUNK_BYTES):
            upload.size_bytes += len(chunk)
            if upload.size_bytes > _LARGEST_BYTES:
                raise ApiError(413, f"File is too large: at most {_LARGEST_BYTES} bytes.")
            file.write(chunk)


async def _receive_field(part: BodyPartReader) -> str:
    value = b""
    while chunk := await part.read_chunk():
        value += chunk
        if len(value) > _LONGEST_FIELD_BYTES:
            raise ApiError(400, f"The field '{part.name}' is too long.", param=part.name)
    return value.decode("utf-8", "replace")


def _file(engine: Engine, file_id: str, upload: _Upload) -> StoredFile:
    purpose = checks.purpose(upload.fields.get("purpose"))
    if upload.filename is None:
        raise missing_parameter("file")
    if purpose == "batch" and not upload.filename.endswith(".jsonl"):
        raise ApiError(400, "Invalid file format for Batch API. Must be .jsonl", param="file")
    now = engine.clock.now()
    return StoredFile(
        id=file_id,
        filename=upload.filename,
        purpose=purpose,
        size_bytes=upload.size_bytes,
        created_at=now,
        expires_at=_expires_at(upload.fields, purpose, now),
    )


def _expires_at(fields: dict[str, str], purpose: str, now: float) -> float | None:
    anchor = fields.get("expires_after[anchor]")
    seconds = fields.get("expires_after[seconds]")
    if anchor is None and seconds is None:
        return now + _BATCH_KEPT_S if purpose == "batch" else None
    return now + checks.kept_s("expires_after", anchor, seconds)


def _header_safe(name: str) -> str:
    return "".join(
        letter if " " <= letter <= "~" and letter not in '"\\' else "_" for letter in name
    )
