"""Public keys: what the outside world calls our rows. Sortable by time, never guessed from a count."""

from __future__ import annotations

from functools import partial

import uuid_utils


def new_key(prefix: str) -> str:
    """Return ``prefix_`` + 32 hex digits of a UUIDv7."""
    return f"{prefix}_{uuid_utils.uuid7().hex}"


def new_file_key() -> str:
    """Return the name of a client's file, as OpenAI writes them: with a dash."""
    return f"file-{uuid_utils.uuid7().hex}"


new_batch_key = partial(new_key, "bat")
new_request_key = partial(new_key, "req")
new_submission_key = partial(new_key, "sub")
new_destination_key = partial(new_key, "dst")
new_upload_key = partial(new_key, "upload")
new_part_key = partial(new_key, "part")
