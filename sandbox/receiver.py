"""A receiver to watch results arrive: prints each webhook, and answers as it is told.

    python -m sandbox.receiver --port 9000 [--status 503] [--delay 2]

For trying things out beside the sandbox: what a result looks like, what a receiver that refuses or
dawdles does to its deliveries. Keeps nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from aiohttp import web

_SHOWN_HEADERS = ("webhook-id", "webhook-timestamp", "x-batcher-custom-id", "x-replay")


def receiver(status: int = 200, delay_s: float = 0.0) -> web.Application:
    """Return an application that prints every POST and answers ``status`` after ``delay_s``."""

    async def take(request: web.Request) -> web.Response:
        body = await request.read()
        facts = [
            f"{name}: {request.headers[name]}" for name in _SHOWN_HEADERS if name in request.headers
        ]
        sys.stdout.write(f"{request.path}  {'  '.join(facts)}\n{body.decode(errors='replace')}\n\n")
        sys.stdout.flush()
        await asyncio.sleep(delay_s)
        return web.Response(status=status)

    application = web.Application(client_max_size=256 * 1024 * 1024)
    application.router.add_post("/{path:.*}", take)
    return application


def main() -> None:
    """Read the command line and receive until stopped."""
    parser = argparse.ArgumentParser(
        prog="python -m sandbox.receiver", description="Print webhooks."
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9000)
    parser.add_argument("--status", type=int, default=200, help="what every delivery is answered")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before the answer")
    options = parser.parse_args()
    sys.stdout.write(f"receiving on http://{options.host}:{options.port}/\n")
    sys.stdout.flush()
    try:
        web.run_app(
            receiver(options.status, options.delay),
            host=options.host,
            port=options.port,
            print=None,
            access_log=None,
        )
    except OSError as problem:
        sys.exit(f"receiver: {problem}")


if __name__ == "__main__":
    main()
