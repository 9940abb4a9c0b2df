"""``manage.py apikey``: make, list, rotate and revoke API keys, for whoever has a shell on the host.

The admin does the same. A key's secret is printed once, when it is made, alone on standard output, so that
a script can take it; it is stored as a hash only.
"""

from __future__ import annotations

from argparse import ArgumentTypeError
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction
from django.utils import timezone

from batching.audit import facts, record
from batching.lifecycle import Actor
from batching.models import ApiKey, Project
from batching.models.projects import Scope
from batching.permits import problem_with

_BY = Actor(name="command apikey")
_LISTS = ("model", "endpoint", "destination")
"""What a key may be bound to: `permits` has the patterns."""


class Command(BaseCommand):
    """Make, list, rotate and revoke API keys."""

    help = "Make, list, rotate and revoke API keys."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the verbs."""
        verbs = parser.add_subparsers(dest="verb", required=True)
        create = verbs.add_parser("create", help="make a key and print its secret, once")
        create.add_argument("name", help="what it is for, as lists show it")
        create.add_argument("--project", help="name of the project; needed when there are several")
        create.add_argument(
            "--scope",
            action="append",
            choices=Scope.values,
            help="may be given several times; all scopes when not given",
        )
        create.add_argument("--expires-days", type=_days, help="days until it closes by itself")
        for kind in _LISTS:
            text = (
                f"pattern of {kind}s that it may use; may be given several times; all without one"
            )
            create.add_argument(f"--{kind}", action="append", default=[], help=text)
        for kind in ("calls", "lines"):
            text = f"{kind} a minute; 0: no limit (default: the installation's)"
            create.add_argument(f"--{kind}-per-minute", type=_count, help=text)
        listed = verbs.add_parser("list", help="show all keys, never their secrets")
        listed.add_argument("--project", help="name of a project; all when not given")
        revoke = verbs.add_parser("revoke", help="close a key for good")
        revoke.add_argument("prefix", help="how the key begins, as `list` shows it")
        rotate = verbs.add_parser("rotate", help="give a key a new secret and print it, once")
        rotate.add_argument("prefix", help="how the key begins, as `list` shows it")
        text = "hours that the old secret holds beside the new one (default: 24)"
        rotate.add_argument("--overlap-hours", type=_count, default=24, help=text)

    def handle(self, *_args: Any, **options: Any) -> None:
        """Do what the verb says."""
        verb = options["verb"]
        with transaction.atomic():
            getattr(self, f"_{verb}")(options)

    def _create(self, options: dict[str, Any]) -> None:
        days = options["expires_days"]
        lists = {kind: options[kind] for kind in _LISTS}
        if problem := problem_with(*lists.values()):
            raise CommandError(problem)
        key, secret = ApiKey.issue(
            _project(options["project"]),
            options["name"],
            scopes=options["scope"],
            expires_at=timezone.now() + timedelta(days=days) if days else None,
        )
        for kind, patterns in lists.items():
            setattr(key, f"allowed_{kind}s", patterns)
        key.calls_per_minute = options["calls_per_minute"]
        key.lines_per_minute = options["lines_per_minute"]
        key.save()
        record("apikey.add", by=_BY, row=key, after=facts(key))
        scopes = ", ".join(key.scopes)
        self.stderr.write(f"Key of project {key.project.name} for {scopes}. It is shown this once:")
        self.stdout.write(secret)

    def _list(self, options: dict[str, Any]) -> None:
        keys = ApiKey.objects.select_related("project").order_by("project__name", "pk")
        if options["project"]:
            keys = keys.filter(project=_project(options["project"]))
        for key in keys:
            used = f"{key.last_used_at:%Y-%m-%d %H:%M}" if key.last_used_at else "never"
            self.stdout.write(
                f"{key.prefix}  {_state(key):8}  {key.project.name}  {key.name}"
                f"  [{', '.join(key.scopes)}]  used {used}"
            )

    def _revoke(self, options: dict[str, Any]) -> None:
        key = _open_key(options["prefix"])
        key.revoke(timezone.now())
        record("apikey.revoke", by=_BY, row=key)
        self.stdout.write(f"Revoked {key}; it opens nothing within seconds.")

    def _rotate(self, options: dict[str, Any]) -> None:
        key, hours = _open_key(options["prefix"]), options["overlap_hours"]
        secret = key.rotate(overlap=timedelta(hours=hours), now=timezone.now())
        record("apikey.rotate", by=_BY, row=key, reason=f"the old secret holds for {hours} h")
        self.stderr.write(
            f"{key}: the old secret holds for {hours} h. The new one, shown this once:"
        )
        self.stdout.write(secret)


def _open_key(prefix: str) -> ApiKey:
    keys = list(ApiKey.objects.filter(prefix=prefix, revoked_at__isnull=True)[:2])
    if not keys:
        raise CommandError(f"no open key begins with {prefix}")
    if len(keys) > 1:
        raise CommandError("several open keys begin like that; choose in the admin")
    return keys[0]


def _count(value: str) -> int:
    if not value.isascii() or not value.isdecimal() or int(value) > 100_000_000:
        raise ArgumentTypeError("must be a whole number from 0 to 100000000")
    return int(value)


def _days(value: str) -> int:
    if not value.isascii() or not value.isdecimal() or not 1 <= int(value) <= 36_500:
        raise ArgumentTypeError("must be a whole number of days from 1 to 36500")
    return int(value)


def _project(name: str | None) -> Project:
    if name:
        project = Project.objects.filter(name=name).first()
        if project is None:
            raise CommandError(f"no project {name!r}")
        return project
    projects = list(Project.objects.order_by("pk")[:2])
    if len(projects) != 1:
        names = ", ".join(Project.objects.order_by("name").values_list("name", flat=True)[:20])
        raise CommandError(f"say --project; there are: {names or 'none yet'}")
    return projects[0]


def _state(key: ApiKey) -> str:
    if key.revoked_at:
        return "revoked"
    return "open" if key.is_valid else "expired"
