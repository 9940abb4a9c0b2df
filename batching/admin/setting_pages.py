"""Every setting with the value that holds and who says so, and a page to change those that may be changed here.

A setting that ``batcher/settings.py`` declares as live takes an override: a row, checked like the variable would
be, with a reason, in the audit log, and read by all processes within seconds (``batching.overrides``). The others
are shown with what the environment says; of secrets, only that they are set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import Http404, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils import timezone
from unfold.widgets import UnfoldAdminTextInputWidget

from batching import audit, overrides
from batching.admin import shown
from batching.admin.moves import ReasonForm
from batching.admin.rows import OurAdmin
from batching.lifecycle import Actor
from batching.limits import configured_tokens, read_model_limits
from batching.models import Account, AuditEntry, Flag, Lane, Override, Project, TokenLimit
from batching.providers.registry import KINDS, limits_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from django.http import HttpRequest, HttpResponse
    from django.urls import URLPattern

SEE, CHANGE = "batching.view_account", "batching.change_override"
ROWS_SHOWN: Final = 200
CHANGES_SHOWN: Final = 10
_SECRETS: Final = ("account__api_key", "account__webhook_secret")
_OF_ACCOUNT: Final = (
    ("poll_seconds", "Seconds between looks"),
    ("max_requests", "Requests in one batch"),
    ("max_bytes", "Bytes of one batch"),
    ("token_limit", "Enqueued tokens of any model"),
    ("max_batches_in_flight", "Batches at the provider"),
    ("max_requests_in_flight", "Requests at the provider"),
    ("max_creates_per_hour", "Batches created in an hour"),
)
_SHOWN_WHOLE: Final = ("BATCHER_", "DATA_DIR", "PORT", "DEBUG")
"""How names begin whose values hold no secret; of the others, such as URLs, only that they are set."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting as it holds now."""

    name: str
    value: str
    source: str
    """``default``, ``environment``, ``set here``, ``row``, ``provider``, ``table`` or ``none``."""
    about: str = ""
    url: str = ""
    """Where it is changed; empty: only in the environment, or not by this person."""
    by: str = ""
    """Who set it here."""
    at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Section:
    """Settings of one kind."""

    title: str
    rows: list[Setting]
    about: str = ""
    more: str = ""
    """Words of the link to where they are kept."""
    more_url: str = ""

    @property
    def says_what(self) -> bool:
        """True when a row tells what it is."""
        return any(row.about for row in self.rows)


def settings_page(request: HttpRequest) -> TemplateResponse:
    """Show each setting with its value and source. Raises PermissionDenied."""
    if not request.user.has_perm(SEE):
        raise PermissionDenied
    context = {
        **admin.site.each_context(request),
        "title": "Settings",
        "sections": list(_sections(may_change=request.user.has_perm(CHANGE))),
        "fresh_s": int(overrides.FRESH_S),
    }
    return TemplateResponse(request, "batcher/admin/settings.html", context)


def _sections(*, may_change: bool) -> Iterator[Section]:
    yield Section(
        title="For all", rows=list(_live(may_change=may_change)),
        about="What is set here comes before the environment, and holds in every process within"
        f" {overrides.FRESH_S:.0f} seconds, without a restart.",
    )  # fmt: skip
    yield Section(
        title="Switches and schedules", rows=list(_switches()),
        more="The clock: what runs how often", more_url=shown.list_of("django_celery_beat.periodictask"),
    )  # fmt: skip
    yield Section(
        title="Projects", rows=list(_of_projects()),
        about="What becomes of a request that can't meet its deadline, and what direct answers may cost a day.",
        more="Projects", more_url=shown.list_of("batching.project"),
    )  # fmt: skip
    yield Section(
        title="Accounts", rows=list(_of_accounts()),
        more="Accounts", more_url=shown.list_of("batching.account"),
    )  # fmt: skip
    yield Section(
        title="Enqueued tokens of a model", rows=list(_of_models()),
        more="Token limits", more_url=shown.list_of("batching.tokenlimit"),
    )  # fmt: skip
    yield Section(
        title=f"Lanes (the newest {ROWS_SHOWN})", rows=list(_of_lanes()),
        more="Lanes", more_url=shown.list_of("batching.lane"),
    )  # fmt: skip
    yield Section(
        title="Only in the environment", rows=list(_of_environment()),
        about="Secrets, addresses, folders, ports, and what is read once at the start: change the environment"
        " and start again.",
    )  # fmt: skip


def _live(*, may_change: bool) -> Iterator[Setting]:
    rows = {row.name: row for row in Override.objects.all()}
    for variable in settings.ENVIRONMENT.declared:
        if variable.parse is not None:
            url = reverse("admin:batching_setting", args=[variable.name]) if may_change else ""
            yield _shown_now(variable, rows.get(variable.name), url)


def _shown_now(variable: Any, row: Override | None, url: str = "") -> Setting:
    """Return one setting; by its row, not by what this process may have read seconds ago."""
    about = variable.description.replace("`", "")
    told: dict[str, Any] = {"name": variable.name, "about": about, "url": url}
    if row is not None and _is_taken(row):
        value = _grouped(_worded(overrides.read(row.name, row.value), variable.default))
        return Setting(value=value, source="set here", by=row.changed_by, at=row.changed_at, **told)
    source = _source(variable.name)
    is_default = source == "default"
    value = variable.default if is_default else _worded(getattr(settings, variable.name), "")
    return Setting(value=_grouped(value), source=source, **told)


def _is_taken(row: Override) -> bool:
    """False for a text that another version of us took and this one would not."""
    try:
        overrides.read(row.name, row.value)
    except ValueError:
        return False
    return True


def _switches() -> Iterator[Setting]:
    row = Flag.objects.filter(name=Flag.MAINTENANCE).first()
    yield Setting(
        name="maintenance",
        value="on" if row and row.is_on else "off",
        source="row" if row else "default",
        about=row.reason if row else "New requests are refused; what was accepted goes on.",
        url=shown.page_of(row) if row else shown.list_of("batching.flag"),
    )


def _of_projects() -> Iterator[Setting]:
    for project in Project.objects.order_by("name")[:ROWS_SHOWN]:
        policy = project.get_deadline_policy_display()
        cap = (
            f" at up to $ {project.direct_cap} a day" if project.deadline_policy == "direct" else ""
        )
        yield Setting(
            name=f"{project.name} · too late", value=f"{policy}{cap}", source="row",
            url=shown.page_of(project),
        )  # fmt: skip


def _of_accounts() -> Iterator[Setting]:
    for account in Account.objects.defer("api_key", "webhook_secret").order_by("name"):
        for field, about in _OF_ACCOUNT:
            value, source = _effective(account, field)
            yield Setting(
                name=f"{account.name} · {field}", value=value, source=source, about=about,
                url=shown.page_of(account),
            )  # fmt: skip


def _effective(account: Account, field: str) -> tuple[str, str]:
    """Return what holds for an account, and who says so: its row, its provider, or the rest of us."""
    own = getattr(account, field)
    if own:
        return shown.number(own), "row"
    if field == "poll_seconds":
        return shown.number(overrides.effective("BATCHER_POLL_SECONDS")), "for all"
    providers = getattr(limits_for(account.kind), field, None) if account.kind in KINDS else None
    if providers is not None:
        return shown.number(providers), "provider"
    return ("by model", "table") if field == "token_limit" else ("no limit", "none")


def _of_models() -> Iterator[Setting]:
    rows = TokenLimit.objects.select_related("account").defer(*_SECRETS)
    for row in rows.order_by("prefix", "account")[:ROWS_SHOWN]:
        whose = f" · {row.account.name}" if row.account else ""
        yield Setting(
            name=f"{row.prefix}…{whose}", value=shown.number(row.tokens), source="row",
            url=shown.page_of(row),
        )  # fmt: skip


def _of_lanes() -> Iterator[Setting]:
    lanes = Lane.objects.select_related("account").defer(*_SECRETS).order_by("-pk")[:ROWS_SHOWN]
    read_model_limits(lanes)
    for lane in lanes:
        tokens, source = configured_tokens(lane)
        yield Setting(
            name=f"{lane} · token_limit", value=shown.number(tokens),
            source="table" if source == "table" else f"row ({source})", url=shown.page_of(lane),
        )  # fmt: skip


def _of_environment() -> Iterator[Setting]:
    """Yield what only the environment may say; no value of a secret or of what may hold one."""
    for variable in settings.ENVIRONMENT.declared:
        if variable.parse is not None:
            continue
        is_plain = variable.name.startswith(_SHOWN_WHOLE) and not variable.is_secret
        told = _worded(getattr(settings, variable.name, None), variable.default)
        is_set = settings.ENVIRONMENT.gives(variable.name)
        yield Setting(
            name=variable.name, value=told if is_plain else ("set" if is_set else "not set"),
            source=_source(variable.name), about=variable.description.replace("`", ""),
        )  # fmt: skip


def _worded(value: Any, default: str) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list | tuple):
        return ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in value) or "none"
    return str(value) if value not in (None, "") else default or "none"


def _grouped(text: str) -> str:
    """Return figures as people read them: 262,144; and lists with room to break."""
    if text.isdigit():
        return shown.number(int(text))
    return text.replace(",", ", ").replace(",  ", ", ")


def _source(name: str) -> str:
    return "environment" if settings.ENVIRONMENT.gives(name) else "default"


class OverrideForm(ReasonForm):
    """Asks for a value, as it would stand in the environment, and why."""

    value = forms.CharField(max_length=1_000, widget=UnfoldAdminTextInputWidget)
    field_order = ("value", "reason")

    def __init__(self, *args: Any, name: str, is_reset: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._name, self._is_reset = name, is_reset
        self.fields["value"].required = not is_reset
        self.fields["reason"].widget.attrs.pop("autofocus", None)

    def clean_value(self) -> str:
        """Check it as the variable would be checked at the start."""
        text: str = self.cleaned_data["value"]
        if self._is_reset:
            return text
        try:
            overrides.read(self._name, text)
        except ValueError as problem:
            raise forms.ValidationError(f"It {problem}.") from problem
        return text


def setting_page(request: HttpRequest, name: str) -> HttpResponse:
    """Show one setting, change it, or take it back. Raises PermissionDenied, Http404."""
    if not request.user.has_perm(CHANGE):
        raise PermissionDenied
    variable = next((v for v in settings.ENVIRONMENT.declared if v.name == name and v.parse), None)
    if variable is None:
        raise Http404
    row = Override.objects.filter(name=name).first()
    is_reset = request.POST.get("deed") == "reset"
    form = _form(request, name, row, is_reset=is_reset)
    if request.method == "POST" and form.is_valid():
        _save(request, name, form.cleaned_data, is_reset=is_reset)
        return HttpResponseRedirect(reverse("admin:batching_settings"))
    context = {
        **admin.site.each_context(request),
        "title": name,
        "setting": _shown_now(variable, row),
        "default": _grouped(variable.default),
        "environment": _source(name) == "environment"
        and _grouped(_worded(getattr(settings, name), "")),
        "form": form,
        "row": row,
        "changes": _changes(name),
        "back": reverse("admin:batching_settings"),
        "fresh_s": int(overrides.FRESH_S),
    }
    return TemplateResponse(request, "batcher/admin/setting.html", context)


def _form(request: HttpRequest, name: str, row: Override | None, *, is_reset: bool) -> OverrideForm:
    if request.method == "POST":
        return OverrideForm(request.POST, name=name, is_reset=is_reset)
    now = row.value if row else _worded(getattr(settings, name), "")
    return OverrideForm(name=name, initial={"value": now})


@transaction.atomic
def _save(request: HttpRequest, name: str, asked: dict[str, Any], *, is_reset: bool) -> None:
    """Write or drop the row, and record it; this process goes by it at once."""
    by = Actor(name=request.user.get_username(), user_id=int(request.user.pk or 0))
    seen = Override.objects.select_for_update().filter(name=name).first()
    before = {"value": seen.value} if seen else None
    if is_reset:
        if seen:
            audit.record("setting.reset", by=by, row=seen, reason=asked["reason"], before=before)
            seen.delete()
        said = f"{name} is what the environment or the default says again."
    else:
        row, _ = Override.objects.update_or_create(
            name=name,
            defaults={"value": asked["value"], "reason": asked["reason"],
                      "changed_by": by.name, "changed_at": timezone.now()},
        )  # fmt: skip
        after = {"value": row.value}
        audit.record(
            "setting.change", by=by, row=row, reason=asked["reason"], before=before, after=after
        )
        said = f"{name} is now {row.value}."
    transaction.on_commit(overrides.forget)
    messages.success(
        request, f"{said} Every process goes by it within {overrides.FRESH_S:.0f} seconds."
    )


def _changes(name: str) -> list[AuditEntry]:
    """Return who changed the setting last, newest first."""
    entries = AuditEntry.objects.filter(object_type=Override._meta.model_name, object_key=name)
    return list(entries.order_by("-pk")[:CHANGES_SHOWN])


@admin.register(Override)
class OverrideAdmin(OurAdmin[Override]):
    """Gives the pages their place; rows are written by `setting_page` alone."""

    def get_urls(self) -> list[URLPattern]:
        """Lead to the page of all settings, and to one for each that is changed here."""
        every = self.admin_site.admin_view(settings_page)
        one = self.admin_site.admin_view(setting_page)
        return [
            path("", every, name="batching_settings"),
            path("", every, name="batching_override_changelist"),
            path("<str:name>/", one, name="batching_setting"),
        ]

    def has_view_permission(self, request: HttpRequest, obj: Override | None = None) -> bool:
        """Those who see accounts."""
        return request.user.has_perm(SEE)

    def has_module_permission(self, request: HttpRequest) -> bool:
        """Those who see accounts."""
        return request.user.has_perm(SEE)
