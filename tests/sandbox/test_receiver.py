"""The receiver for trying things out prints what came and answers as told."""

from __future__ import annotations

import asyncio

from aiohttp import ClientSession, web

from sandbox.receiver import receiver


def test_it_prints_a_delivery_and_answers_as_told(capsys):
    status = asyncio.run(
        post(receiver(status=503), b'{"custom_id":"a"}', {"webhook-id": "req_1-1"})
    )

    printed = capsys.readouterr().out
    assert status == 503
    assert '{"custom_id":"a"}' in printed
    assert "webhook-id: req_1-1" in printed


async def post(application, body, headers):
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
        async with (
            ClientSession() as session,
            session.post(url, data=body, headers=headers) as answer,
        ):
            return answer.status
    finally:
        await runner.cleanup()
