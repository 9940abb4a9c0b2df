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

_PREFIX = "whsec_"
_SECRET_BYTES = 32


def new_secret() -> str:
    """Return a fresh signing secret, ``whsec_`` and 32 random bytes in base64."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def signing_key(secret: str) -> bytes:
    """Return the key that a secret stands for; raise ValueError for a secret that is none."""
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("the signing secret is not whsec_ and base64") from error
    if not key:
        raise ValueError("the signing secret is empty")
    return key


def sign(key: bytes, message_id: str, sent_at_s: int, body: bytes) -> str:
    """Return one ``v1,…`` signature for a message that is sent at that epoch second."""
    signed = b"%s.%d.%s" % (message_id.encode(), sent_at_s, body)
    # Not hmac.digest: it lets go of the interpreter for the smallest message, and has to wait to get it back.
    digest = hmac.new(key, signed, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()
