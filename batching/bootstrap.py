"""The first rows: a user for the admin, a project with a key, and the accounts that the environment names.

Called at each start; makes only what is missing, and keeps the environment's accounts in step with
it. Secrets that it had to make are returned once, to be shown to whoever started us.
"""

from __future__ import annotations

import secrets

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import transaction
from django.db.models import Q

from batching.models import Account, ApiKey, Override, Project
from batching.models.projects import digest

_SANDBOX_POLL_SECONDS = 2


@transaction.atomic
def bootstrap(*, sandbox_url: str | None) -> list[str]:
    """Make what is missing and return lines for the person at the terminal."""
    project, _ = Project.objects.get_or_create(name="default")
    _keep_accounts(sandbox_url)
    return [*_first_admin(), *_first_key(project), *_overridden()]


def _first_admin() -> list[str]:
    users = get_user_model()
    if users.objects.filter(username="admin").exists():
        return []
    password = settings.BATCHER_ADMIN_PASSWORD or secrets.token_urlsafe(12)
    users.objects.create_superuser(username="admin", password=password)
    if settings.BATCHER_ADMIN_PASSWORD:
        return ["Log in as admin, with BATCHER_ADMIN_PASSWORD."]
    return [f"Log in as admin, password {password} (shown once)."]


def _first_key(project: Project) -> list[str]:
    given = settings.BATCHER_BOOTSTRAP_API_KEY
    if given:
        stored = Q(secret_sha256=digest(given)) | Q(previous_sha256=digest(given))
        if not ApiKey.objects.filter(stored).exists():  # a rotated one is not made again
            ApiKey.issue(project, "bootstrap", secret=given)
        return ["API key: BATCHER_BOOTSTRAP_API_KEY."]
    if project.api_keys.exists():
        return []
    _, secret = ApiKey.issue(project, "first")
    return [f"API key {secret} (shown once)."]


def _overridden() -> list[str]:
    """Name the settings whose variables say nothing for now, or a changed variable would puzzle whoever changed it."""
    names = list(Override.objects.order_by("name").values_list("name", flat=True))
    return [f"Set in the panel, before the environment: {', '.join(names)}."] if names else []


def _keep_accounts(sandbox_url: str | None) -> None:
    """Write the environment's accounts; the sandbox's is on only while a sandbox runs for us."""
    if settings.OPENAI_API_KEY:
        Account.objects.update_or_create(
            name="openai",
            defaults={
                "kind": Account.Kind.OPENAI,
                "base_url": settings.OPENAI_BASE_URL,
                "api_key": settings.OPENAI_API_KEY,
            },
        )
    if settings.ANTHROPIC_API_KEY:
        Account.objects.update_or_create(
            name="anthropic",
            defaults={
                "kind": Account.Kind.ANTHROPIC,
                "base_url": settings.ANTHROPIC_BASE_URL,
                "api_key": settings.ANTHROPIC_API_KEY,
            },
        )
    for kind in (Account.Kind.SANDBOX, Account.Kind.SANDBOX_ANTHROPIC):
        _keep_sandbox(kind, sandbox_url)


def _keep_sandbox(kind: Account.Kind, sandbox_url: str | None) -> None:
    """Write the account at one side of the sandbox, named like its kind; Anthropic's URL has no /v1."""
    if sandbox_url is None:
        Account.objects.filter(name=kind, kind=kind).update(is_enabled=False)
        return
    is_openai = kind is Account.Kind.SANDBOX
    Account.objects.update_or_create(
        name=kind.value,
        defaults={
            "kind": kind,
            "base_url": sandbox_url if is_openai else sandbox_url.removesuffix("/v1"),
            "api_key": "sandbox",
            "is_enabled": True,
            "poll_seconds": _SANDBOX_POLL_SECONDS,
        },
    )
