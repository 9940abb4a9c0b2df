"""The admin: what an operator sees and does, one module for each noun.

Decides how rows are listed, shown and acted upon. Every action calls the function that the API calls and
reports what came of it; nothing here writes a state. Rows that the machine makes are read-only.
Django's autodiscover imports this package, and so registers every module below.
"""

from __future__ import annotations

from batching.admin import (
    accounts,
    api_keys,
    audit_log,
    batches,
    clock,
    destinations,
    export_rows,
    files,
    flags,
    history,
    lanes,
    limits,
    logins,
    people,
    projects,
    requests,
    runs,
    setting_pages,
    submissions,
)

__all__ = [
    "accounts",
    "api_keys",
    "audit_log",
    "batches",
    "clock",
    "destinations",
    "export_rows",
    "files",
    "flags",
    "history",
    "lanes",
    "limits",
    "logins",
    "people",
    "projects",
    "requests",
    "runs",
    "setting_pages",
    "submissions",
]
