"""The stand-in provider: a real HTTP server that speaks OpenAI's Batch API and misbehaves on command.

It stands alone: it imports nothing of Batcher and Batcher imports nothing of it, so that a test
against it is a test over the wire. Start it with ``python -m sandbox``; docs/sandbox.md says how to
use it.

    server      HTTP: routes, errors, keys          engine      what happens to a batch as time passes
    lifecycle   the states of a batch, by the clock  results     a finished batch's output and error file
    scenario    the faults one can ask for          rules       which fault strikes when
    lines       reading and validating input        answers     what the pretended models say
    objects     what is kept, and how it is shown   store       SQLite and the files
"""
