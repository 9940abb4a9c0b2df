"""The rows of batching: who asks (projects, keys), where it goes (accounts, lanes), and the work itself.

Fields, constraints, indexes and questions (as QuerySet methods) live here; every change of state is
made through ``batching.lifecycle``.
"""

from __future__ import annotations

from batching.models.accounts import Account, Capacity, Lane, TokenLimit, Turnaround
from batching.models.audit import AuditEntry
from batching.models.batches import Batch
from batching.models.direct import DirectCall, DirectSpend
from batching.models.exports import Export
from batching.models.files import ClientFile, FileUpload, UploadPart
from batching.models.manners import Allowance, KeptAnswer
from batching.models.notices import Notice
from batching.models.operations import Beat, Flag, Override, Pulse
from batching.models.projects import ApiKey, Destination, Project
from batching.models.requests import Answer, Request, RequestBody, Submission
from batching.models.runs import Run, RunShare
from batching.models.saved_views import SavedView
from batching.models.tallies import Bookmark, Spend, Tally

__all__ = [
    "Account",
    "Allowance",
    "Answer",
    "ApiKey",
    "AuditEntry",
    "Batch",
    "Beat",
    "Bookmark",
    "Capacity",
    "ClientFile",
    "Destination",
    "DirectCall",
    "DirectSpend",
    "Export",
    "FileUpload",
    "Flag",
    "KeptAnswer",
    "Lane",
    "Notice",
    "Override",
    "Project",
    "Pulse",
    "Request",
    "RequestBody",
    "Run",
    "RunShare",
    "SavedView",
    "Spend",
    "Submission",
    "Tally",
    "TokenLimit",
    "Turnaround",
    "UploadPart",
]
