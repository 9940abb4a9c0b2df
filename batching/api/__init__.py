"""The JSON API under /api, and what tells others how we are: /health, /ready, /metrics.

``urls.ROUTES`` is the table of everything there is; each view parses, calls a phase or a QuerySet, and
renders a shape. Nothing here decides about a request or a batch.
"""
