"""The models that a client may ask for by name: those that requests have been sent to through its accounts.

No provider is asked, so a model that nobody used yet is missing here and works all the same.
"""

from __future__ import annotations

import msgspec
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse

from batching.api.auth import Caller
from batching.api.openai.door import Problem
from batching.api.openai.shapes import ModelObject, model_object
from batching.api.operations import Answer, operation, render
from batching.models import Account, Lane
from batching.models.projects import Scope


@operation(scope=Scope.READ, answers={200: Answer("The models.")})
def list_models(request: HttpRequest, caller: Caller) -> HttpResponse:
    """List the models that requests have been sent to."""
    by_name = {lane.model: model_object(lane) for lane in _lanes(caller)}
    page = {"object": "list", "data": list(by_name.values())}
    return render(msgspec.json.encode(page))


@operation(scope=Scope.READ, answers={200: Answer("The model.", ModelObject)}, fails=(404,))
def show_model(request: HttpRequest, caller: Caller, model: str) -> HttpResponse:
    """Retrieve one model."""
    lane = _lanes(caller).filter(model=model).first() if "\0" not in model else None
    if lane is None:
        message = f"The model '{model[:100]}' does not exist."
        raise Problem(404, message, param="model", code="model_not_found")
    return render(msgspec.json.encode(model_object(lane)))


def _lanes(caller: Caller) -> QuerySet[Lane]:
    accounts = Account.objects.usable_by(caller.project)
    lanes = Lane.objects.filter(account__in=accounts.order_by().values("pk"))
    return (
        lanes.select_related("account")
        .defer("account__api_key", "account__webhook_secret")
        .order_by("model", "-pk")
    )
