"""Requests and batches: everything between a client's post and an answer that is due for delivery.

Words (see docs/architecture.md for the whole list): a *request* is one LLM call that a client wants
answered cheaply; a *batch* is requests of one *lane* (account, model, endpoint) sent to the provider
together; an *answer* is the provider's line for one request, kept byte for byte.
"""
