"""Sign what we send to webhooks, by Standard Webhooks 1.0.0, symmetric keys (``v1``).

Called by ``webhook`` at each try, and by whoever makes a destination, for its secret. Verifying is the
receiver's part: docs/webhooks.md shows how.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from datetime import datetime

_PREFIX = "whsec_"
_SECRET_BYTES = 32


def new_secret() -> str:
    """Return a fresh signing secret, ``whsec_`` and 32 random bytes in base64."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def sign(secret: str, message_id: str, sent_at: datetime, body: bytes) -> str:
    """Return one ``v1,…`` signature; raise ValueError for a secret that is none."""
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("the signing secret is not whsec_ and base64") from error
    if not key:
        raise ValueError("the signing secret is empty")
    signed = b"%s.%d.%s" % (message_id.encode(), int(sent_at.timestamp()), body)
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
