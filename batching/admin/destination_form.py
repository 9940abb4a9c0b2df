"""The form of a destination: a place and what it asks for, checked by the core's own rules."""

from __future__ import annotations

from typing import ClassVar

from django import forms
from unfold.widgets import UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from batching.admin.rows import ModelForm
from batching.models import Destination
from delivery import destinations

_KEPT = "***"
"""Stands for a stored header's value, which is never shown."""


class DestinationForm(ModelForm[Destination]):
    """A place, and what it asks for. Stored header values are never shown."""

    own_headers = forms.CharField(
        label="Headers",
        required=False,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 3, "spellcheck": "false"}),
        help_text="One a line, “Authorization: Bearer …”; sent with each webhook, encrypted here. A stored value "
        f"shows as {_KEPT}: leave it to keep it, take the line out to drop it.",
    )
    delays = forms.CharField(
        label="Retry schedule",
        required=False,
        widget=UnfoldAdminTextInputWidget,
        help_text="Seconds before each try between commas, the first included: 0, 5, 300, 1800. Empty: the default.",
    )

    class Meta:
        model = Destination
        fields = (
            "project", "name", "type", "url", "queue", "exchange", "routing_key",
            "fail_fast_on_4xx", *destinations.RANGES,
        )  # fmt: skip
        help_texts: ClassVar = {
            "name": "Requests may say this name instead of the address.",
            "url": "Of a webhook: https://, no user or password. http:// and private networks only as the environment "
            "opens them.",
            "queue": "Of RabbitMQ: the queue, or else an exchange with a routing key.",
            "fail_fast_on_4xx": "A client error ends a delivery at once; else it is tried on.",
            "timeout_s": "Seconds for one try, all in all. Empty, here and below: the default.",
            "max_in_flight": "Tries under way at once.",
            "max_per_second": "Tries begun in a second. Empty: no fixed rate.",
            "max_inline_bytes": "A larger result goes as a thin message that says where to fetch it.",
        }
        labels: ClassVar = {
            "url": "URL",
            "fail_fast_on_4xx": "Fail fast on 4xx",
            "timeout_s": "Timeout (s)",
            "max_in_flight": "Most in flight",
            "max_per_second": "Most per second",
            "max_inline_bytes": "Most bytes inline",
        }

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]  # passed through
        if "own_headers" in self.fields:
            names = self.instance.own_headers
            self.initial["own_headers"] = "\n".join(f"{name}: {_KEPT}" for name in names)
            delays = self.instance.retry_delays_s or []
            self.initial["delays"] = ", ".join(f"{delay:g}" for delay in delays)

    def clean_own_headers(self) -> dict[str, str]:
        """Read lines; a value that is hidden is the stored one."""
        stored, headers = self.instance.own_headers, dict[str, str]()
        for line in filter(str.strip, self.cleaned_data["own_headers"].splitlines()):
            name, colon, value = (part.strip() for part in line.partition(":"))
            if not colon:
                raise forms.ValidationError("Write each header as “Name: value”.")
            if name in headers:
                raise forms.ValidationError(f"{name} is given twice.")
            headers[name] = stored.get(name, value) if value == _KEPT else value
        return headers

    def clean_delays(self) -> list[float] | None:
        """Read numbers between commas."""
        typed = self.cleaned_data["delays"].replace(",", " ").split()
        try:
            return [float(part) for part in typed] or None
        except ValueError:
            raise forms.ValidationError("Write numbers of seconds between commas.") from None

    def _post_clean(self) -> None:
        """Ask the core what is wrong with the destination, once it has all its values."""
        super()._post_clean()  # type: ignore[misc]  # Django's own hook
        if self.errors or "own_headers" not in self.fields:
            return
        destinations.write_headers(self.instance, self.cleaned_data["own_headers"])
        self.instance.retry_delays_s = self.cleaned_data["delays"]
        for problem in destinations.problems_with(self.instance):
            field = {"headers": "own_headers", "retry_delays_s": "delays"}.get(
                problem.field, problem.field
            )
            self.add_error(field if field in self.fields else None, f"It {problem.detail}.")
