"""The sandbox page: send a sample, choose how the stand-in provider fails, watch the results arrive.

Shown in the sidebar only while a sandbox account is on. Everything that it shows of the sandbox is asked of the
sandbox itself, with a short deadline; when that does not answer, the page says so and still shows our own rows.
The two parts that move are asked for again by htmx until the sample that is watched has come to its end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.http import urlencode

from batching import audit, gateway
from batching.admin import samples, shown
from batching.admin.sandbox_forms import ConductForm, ReceiverForm, SampleForm
from batching.lifecycle import Actor
from batching.models import Account, Destination, Submission
from batching.models.projects import place_of
from batching.providers.base import ProviderError
from batching.steering import Refused
from delivery import health, why

if TYPE_CHECKING:
    from django.db.models import QuerySet
    from django.http import HttpRequest

    from batching.providers.sandbox_control import Receiver, SandboxControl

SEE: Final = "batching.view_account"
SEND: Final = "batching.operate_request"
ARRIVALS_SHOWN: Final = 8
STOP_POLLING: Final = 286
"""Status that tells htmx to ask no more."""
PARTS: Final = ("sandbox_watch", "sandbox_receiver")


def accounts_in_use() -> QuerySet[Account]:
    """Return the sandbox's accounts that are on."""
    kinds = (Account.Kind.SANDBOX, Account.Kind.SANDBOX_ANTHROPIC)
    return Account.objects.filter(kind__in=kinds, is_enabled=True).order_by("pk")


def is_offered(request: HttpRequest) -> bool:
    """Say whether the sidebar leads here: to those who see accounts, while a sandbox is in use."""
    return request.user.has_perm(SEE) and accounts_in_use().exists()


def sandbox_page(request: HttpRequest) -> HttpResponse:
    """Show the page, or one of its moving parts; on POST do what was asked and come back. Raises PermissionDenied."""
    if not request.user.has_perm(SEE):
        raise PermissionDenied
    accounts = list(accounts_in_use())
    if request.method == "POST" and accounts:
        return _do(request, accounts)
    return _show(request, accounts)


def _show(
    request: HttpRequest, accounts: list[Account], form: SampleForm | None = None
) -> HttpResponse:
    context = _watched(request)
    part = request.headers.get("HX-Target", "")
    if part == "sandbox_watch" and "progress" in context:
        return _part(request, part, context)
    context |= _receiver(accounts)
    if part == "sandbox_receiver":
        return _part(request, part, context)
    context |= {
        **admin.site.each_context(request),
        "title": "Sandbox",
        "accounts": accounts,
        "may_send": request.user.has_perm(SEND),
        "form": form or SampleForm(accounts=accounts),
        "receiver_form": ReceiverForm(),
        **_conduct(accounts),
    }
    return TemplateResponse(request, "batcher/admin/sandbox.html", context)


def _part(request: HttpRequest, part: str, context: Mapping[str, Any]) -> HttpResponse:
    status = 200 if context["is_live"] else STOP_POLLING
    context = {**context, "may_send": request.user.has_perm(SEND), "receiver_form": ReceiverForm()}
    return render(request, f"batcher/admin/_{part}.html", context, status=status)


def _watched(request: HttpRequest) -> dict[str, Any]:
    """Return the sample that the address names, as far as it is."""
    key = request.GET.get("submission", "")
    around = {"as_of": timezone.now(), "is_live": False, "watch_url": _url(key)}
    row = Submission.objects.filter(key=key).first() if key.isascii() and "\0" not in key else None
    if row is None:
        return around
    progress = samples.progress_of(row)
    return {
        **around,
        "progress": progress,
        "is_live": not progress.is_over,
        "batches": [
            (b, shown.page_of(b), why.of_batch(b, timezone.now())) for b in progress.batches
        ],
        "requests_url": shown.list_of("batching.request", submission=row.key),
        "dead_url": reverse("dead_letters"),
    }


def _url(key: str) -> str:
    page = reverse("sandbox")
    return f"{page}?{urlencode({'submission': key})}" if key else page


def _receiver(accounts: list[Account]) -> dict[str, Any]:
    """Return what the sandbox's receiver tells, or why it tells nothing."""
    if not accounts:
        return {}
    try:
        receiver = gateway.sandbox_control(accounts[0]).receiver(limit=ARRIVALS_SHOWN)
    except ProviderError as error:
        return {"silence": str(error)}
    return {"receiver": receiver, "refusing": _refusing(receiver)}


def _refusing(receiver: Receiver) -> str:
    return "" if receiver.is_well else f"answers {receiver.status}"


def _conduct(accounts: list[Account]) -> dict[str, Any]:
    """Return how the sandbox behaves and what it could do instead, or why that is not known."""
    if not accounts:
        return {}
    try:
        control = gateway.sandbox_control(accounts[0])
        conduct = control.conduct()
        form = ConductForm(scenarios=control.scenarios(), faults=control.faults())
    except ProviderError as error:
        return {"silence": str(error)}
    return {"conduct": conduct, "conduct_form": form}


def _do(request: HttpRequest, accounts: list[Account]) -> HttpResponse:
    """Do what the pressed button says."""
    deed = _DEEDS.get(request.POST.get("deed", ""))
    if not request.user.has_perm(SEND) or deed is None:
        raise PermissionDenied
    try:
        return deed(request, accounts) or HttpResponseRedirect(request.get_full_path())
    except Refused as refusal:
        messages.error(request, f"Nothing was sent: {refusal.detail}.")
    except ProviderError as error:
        messages.error(request, f"The sandbox did not do it: {error}.")
    return HttpResponseRedirect(request.get_full_path())


def _send(request: HttpRequest, accounts: list[Account]) -> HttpResponse:
    form = SampleForm(request.POST, accounts=accounts)
    if not form.is_valid():
        return _show(request, accounts, form)
    asked, by = form.cleaned_data, _actor(request)
    account = asked["account"]
    with transaction.atomic():
        sample = samples.Sample(
            project=asked["project"],
            account=account,
            count=asked["count"],
            model=asked["model"],
            delivery=_delivery(asked, account),
        )
        submission = samples.send(sample, by=by, now=timezone.now())
    messages.success(request, f"{sample.count:,} sent. Watch them below.")
    return HttpResponseRedirect(f"{_url(submission.key)}#sandbox_watch")


def _delivery(asked: Mapping[str, Any], account: Account) -> dict[str, str]:
    """Return the delivery_config that the form means. Inside atomic: it may make a destination."""
    if asked["to"] == SampleForm.NOBODY:
        return {"type": "none"}
    if asked["to"] == SampleForm.WEBHOOK:
        return {"type": "webhook", "webhook_url": asked["url"]}
    url = gateway.sandbox_control(account).receiver_url
    row = samples.receiver_of(asked["project"], url)
    return {"type": "destination", "name": row.name} if row.name else row.config


def _misbehave(request: HttpRequest, accounts: list[Account]) -> None:
    control = gateway.sandbox_control(accounts[0])
    form = ConductForm(request.POST, scenarios=control.scenarios(), faults=control.faults())
    if not form.is_valid():
        messages.error(request, "Choose a scenario or a fault from the list.")
        return
    form.tell(control)
    _note(request, accounts[0], "sandbox.misbehave", {"what": form.cleaned_data["what"]})
    messages.success(
        request, "The sandbox does so from now on. Batches that it has keep their rules."
    )


def _behave(request: HttpRequest, accounts: list[Account]) -> None:
    gateway.sandbox_control(accounts[0]).behave()
    _note(request, accounts[0], "sandbox.behave", {})
    messages.success(request, "The sandbox has no fault any more.")


def _break(request: HttpRequest, accounts: list[Account]) -> None:
    form = ReceiverForm(request.POST)
    if not form.is_valid():
        raise PermissionDenied
    status = int(form.cleaned_data["status"])
    gateway.sandbox_control(accounts[0]).answer(status)
    _note(request, accounts[0], "sandbox.break_receiver", {"status": status})
    messages.warning(request, f"The receiver answers {status} from now on, until you mend it.")


def _mend(request: HttpRequest, accounts: list[Account]) -> None:
    control = gateway.sandbox_control(accounts[0])
    control.answer(200)
    _trust(control)
    _note(request, accounts[0], "sandbox.mend_receiver", {})
    messages.success(request, "The receiver takes results again.")


def _trust(control: SandboxControl) -> None:
    """Forget what speaks against the receiver, so that nobody waits for its circuit to close."""
    place = place_of("webhook", control.receiver_url, "", "", "")
    with transaction.atomic():
        for row in Destination.objects.present().filter(fingerprint=place):
            health.trust(row.pk)


def _note(request: HttpRequest, account: Account, action: str, what: dict[str, Any]) -> None:
    audit.record(action, by=_actor(request), row=account, after=what)


def _actor(request: HttpRequest) -> Actor:
    return Actor(name=request.user.get_username(), user_id=int(request.user.pk or 0))


_DEEDS: Final[Mapping[str, Callable[[HttpRequest, list[Account]], HttpResponse | None]]] = {
    "send": _send,
    "misbehave": _misbehave,
    "behave": _behave,
    "break": _break,
    "mend": _mend,
}
