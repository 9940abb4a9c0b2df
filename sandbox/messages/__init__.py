"""Anthropic's side of the sandbox: /v1/messages/batches.

    batches   the calls                 intake   the body of a create, streamed and split into lines
    shapes    how a batch is shown

Answers, clock, scenario, faults and store are the same as OpenAI's side has: a message batch is a
Batch whose endpoint is /v1/messages, and its requests lie in a file of lines.
"""
