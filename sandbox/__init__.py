"""The stand-in provider: a real HTTP server that speaks two batch APIs and misbehaves on command.

It stands alone: it imports nothing of Batcher and Batcher imports nothing of it, so that a test
against it is a test over the wire. Start it with ``python -m sandbox``; docs/sandbox.md says how to
use it.

    cli         start and stop                       server      which call goes where, keys, counting
    files       /v1/files                            batches     /v1/batches
    messages    /v1/messages/batches, Anthropic's    rows        lines of a results file
    models      /v1/models, single answers           control     /sandbox: scenario, clock, statistics
    checks      what a call must look like           calls       what goes wrong on the wire
    engine      what happens as time passes          lifecycle   the stages of a batch
    lines       reading and refusing input           results     writing output and error files
    answers     what the pretended models say        objects     what is kept, and how it is shown
    scenario    reading and checking a scenario      faults      every fault there is
    rules       which fault strikes when             store       SQLite and the files
    receiver    prints webhooks, for trying out
"""
