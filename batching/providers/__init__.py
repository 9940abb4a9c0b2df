"""Providers of batch APIs. No Django, no database, no Celery in this package.

``provider_for(kind, ...)`` is the one way in; ``base`` has the Protocol, the values and the errors.
"""
