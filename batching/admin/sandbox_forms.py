"""The forms of the sandbox page: what to send, how the provider fails, what the receiver answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from django import forms
from unfold.widgets import (
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminRadioSelectWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextInputWidget,
)

from batching.admin import samples
from batching.models import Account, Project

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batching.providers.sandbox_control import Named, SandboxControl

_SCENARIO, _FAULT = "scenario", "fault"
_STRIKES: Final = {
    "calls": "Faults of calls",
    "batches": "Faults of batches",
    "lines": "Faults of lines",
}
_BROKEN: Final = (
    (500, "500: tried once more, then given up"),
    (503, "503: too busy, so tried again after a minute"),
    (400, "400: given up at once"),
    (410, "410 Gone: its destination is disabled"),
)


class SampleForm(forms.Form):
    """How many requests, through which account, to whom."""

    RECEIVER, NOBODY, WEBHOOK = "receiver", "none", "webhook"

    count = forms.IntegerField(
        label="Requests",
        min_value=1,
        max_value=samples.MOST,
        initial=5,
        widget=UnfoldAdminIntegerFieldWidget,
        help_text=f"1 to {samples.MOST}. They are made up, cost nothing and are sent at once.",
    )
    account = forms.ModelChoiceField(
        Account.objects.none(), label="Account", empty_label=None, widget=UnfoldAdminSelectWidget
    )
    model = forms.CharField(
        label="Model",
        required=False,
        max_length=200,
        widget=UnfoldAdminTextInputWidget(
            attrs={"placeholder": "gpt-4o-mini", "spellcheck": "false"}
        ),
        help_text="Any name will do. Empty: one that the account knows.",
    )
    project = forms.ModelChoiceField(
        Project.objects.none(), label="Project", empty_label=None, widget=UnfoldAdminSelectWidget
    )
    to = forms.ChoiceField(
        label="Results go to",
        choices=(
            (RECEIVER, "the sandbox's own receiver"),
            (NOBODY, "nobody: the client pulls them"),
            (WEBHOOK, "a webhook of yours"),
        ),
        initial=RECEIVER,
        widget=UnfoldAdminRadioSelectWidget,
    )
    url = forms.CharField(
        label="Your webhook's URL",
        required=False,
        max_length=2048,
        widget=UnfoldAdminTextInputWidget(attrs={"placeholder": "http://127.0.0.1:9000/results"}),
    )

    def __init__(self, *args: Any, accounts: Sequence[Account], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        choosable = Account.objects.filter(pk__in=[account.pk for account in accounts])
        projects = Project.objects.order_by("pk")
        for name, rows in (("account", choosable.order_by("pk")), ("project", projects)):
            self.fields[name].queryset = rows  # type: ignore[attr-defined]  # a ModelChoiceField
            self.fields[name].initial = rows.first()

    def clean(self) -> dict[str, Any]:
        """Ask for a URL where it is needed, and for an account that the project may use."""
        given = super().clean() or {}
        if given.get("to") == self.WEBHOOK and not given.get("url"):
            self.add_error("url", "Say where, or choose another receiver.")
        account, project = given.get("account"), given.get("project")
        if account and project and account.project_id not in (None, project.pk):
            self.add_error("account", f"Only the project {account.project} may use it.")
        return given


class ConductForm(forms.Form):
    """Which scenario or fault, and how often."""

    what = forms.ChoiceField(label="From now on", widget=UnfoldAdminSelectWidget)
    times = forms.IntegerField(
        label="How often",
        min_value=1,
        max_value=10_000,
        initial=1,
        required=False,
        widget=UnfoldAdminIntegerFieldWidget,
        help_text="Of a fault: then it behaves again. Empty: always. A scenario says it itself.",
    )

    def __init__(
        self, *args: Any, scenarios: Sequence[Named], faults: Sequence[Named], **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._faults = {fault.name: fault for fault in faults}
        ready = [(f"{_SCENARIO}:{one.name}", f"{one.name}: {one.description}") for one in scenarios]
        struck = [
            (
                title,
                [
                    (f"{_FAULT}:{f.name}", f"{f.name}: {f.description}")
                    for f in faults
                    if f.strikes == strikes
                ],
            )
            for strikes, title in _STRIKES.items()
        ]
        field = self.fields["what"]
        field.choices = [("Ready-made scenarios", ready), *struck]  # type: ignore[attr-defined]  # a ChoiceField

    def tell(self, control: SandboxControl) -> None:
        """Let the sandbox behave like what was chosen. Raises ProviderError."""
        kind, _, name = self.cleaned_data["what"].partition(":")
        if kind == _SCENARIO:
            control.behave_like(name)
            return
        times = self.cleaned_data["times"]
        often = {"times": times} if times else {}
        description = self._faults[name].description
        control.misbehave({"description": description, "rules": [{"fault": name, **often}]})


class ReceiverForm(forms.Form):
    """What a broken receiver answers."""

    status = forms.TypedChoiceField(
        label="Answer", choices=_BROKEN, coerce=int, widget=UnfoldAdminSelectWidget
    )
