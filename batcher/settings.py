"""Every setting, from the environment only; a wrong value stops the start and names its variable.

Decides defaults and how variables become Django's and Celery's settings. Django imports it; commands and
tasks read it through `django.conf.settings` and pass values down. Never read below the edges.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from cryptography.fernet import Fernet
from django.core.management.utils import get_random_secret_key

from batcher import env
from batcher.databases import database_settings, database_url
from batcher.logs import logging_settings
from batcher.theme import FORMAT_MODULE_PATH, UNFOLD  # noqa: F401  # settings of Django and the theme
from batching.reach import AddressGuard
from delivery.retry import DEFAULT_DELAYS_S

BASE_DIR = Path(__file__).resolve().parent.parent
ENVIRONMENT = env.Environment(os.environ)
_read, _live, _secret = ENVIRONMENT.read, ENVIRONMENT.live, ENVIRONMENT.secret

# Where it lives

DATA_DIR = _read(
    "DATA_DIR",
    env.writable_folder,
    default=str(BASE_DIR / "data"),
    shown="./data",
    description="Folder for the SQLite database, files on their way, and secrets made at the first start.",
)
PORT = _read(
    "PORT",
    env.whole_number(1, 65535),
    default="8000",
    description="Port of the web server.",
)
BATCHER_HOST = _read(
    "BATCHER_HOST",
    env.text,
    default="127.0.0.1",
    description="Address that the web server listens on.",
)
BATCHER_PUBLIC_URL = _read(
    "BATCHER_PUBLIC_URL",
    env.web_url,
    default="",
    description="URL that people and clients reach us by; https:// makes cookies secure.",
)
_public_host = urlsplit(BATCHER_PUBLIC_URL).hostname or ""
_public_origin = "{0.scheme}://{0.netloc}".format(urlsplit(BATCHER_PUBLIC_URL))
ALLOWED_HOSTS = _read(
    "ALLOWED_HOSTS",
    env.listed,
    default=",".join(filter(None, ["127.0.0.1", "localhost", "[::1]", _public_host])),
    shown="this computer, and the host of BATCHER_PUBLIC_URL",
    description="Host names that we answer to, between commas.",
)
CSRF_TRUSTED_ORIGINS = _read(
    "CSRF_TRUSTED_ORIGINS",
    env.listed,
    default=_public_origin if _public_host else "",
    shown="BATCHER_PUBLIC_URL",
    description="Origins (scheme://host) whose forms are trusted, between commas.",
)
BATCHER_URL = _read(
    "BATCHER_URL",
    env.web_url,
    default=f"http://127.0.0.1:{PORT}",
    shown="this computer, on PORT",
    description="Server that `manage.py submit`, `status` and `results` speak to.",
)
BATCHER_API_KEY = _secret(
    "BATCHER_API_KEY",
    env.text,
    description="API key that `manage.py submit`, `status` and `results` send.",
)
BATCHER_CORS_ORIGINS = _read(
    "BATCHER_CORS_ORIGINS",
    env.origins,
    default="",
    shown="none",
    description="Origins (scheme://host) whose pages may call /api and /v1 from a browser, between commas.",
)

# Secrets

SECRET_KEY = ENVIRONMENT.made_once(
    "SECRET_KEY",
    DATA_DIR / "secrets" / "django.key",
    get_random_secret_key,
    description="Signs sessions and forms.",
)
BATCHER_ENCRYPTION_KEYS = env.listed(
    ENVIRONMENT.made_once(
        "BATCHER_ENCRYPTION_KEYS",
        DATA_DIR / "secrets" / "encryption.key",
        lambda: Fernet.generate_key().decode(),
        description="Fernet keys for secrets at rest, newest first, between commas.",
    )
)
ENVIRONMENT.problems += env.fernet_problems("BATCHER_ENCRYPTION_KEYS", BATCHER_ENCRYPTION_KEYS)
BATCHER_ADMIN_PASSWORD = _secret(
    "BATCHER_ADMIN_PASSWORD",
    env.text,
    shown="made and printed once",
    description="First password of the user `admin`.",
)
BATCHER_BOOTSTRAP_API_KEY = _secret(
    "BATCHER_BOOTSTRAP_API_KEY",
    env.long_text(32),
    shown="made and printed once",
    description="First API key, all scopes, of the default project; 32 or more characters.",
)

# Database, broker, providers

DATABASE_URL = _secret(
    "DATABASE_URL",
    database_url,
    shown="SQLite in DATA_DIR",
    description="`postgresql://user:password@host/name`, or `sqlite:///path`.",
)
CELERY_BROKER_URL = _secret(
    "CELERY_BROKER_URL",
    env.url("embedded", "amqp", "amqps", "redis", "rediss"),
    default="embedded://",
    shown="`embedded://`",
    description="Broker of the workers: `amqp://`, `redis://`, or one in DATA_DIR for one host.",
)
RABBITMQ_URL = _secret(
    "RABBITMQ_URL",
    env.url("amqp", "amqps"),
    description="RabbitMQ server that results are delivered to and requests are taken from.",
)
RABBITMQ_INPUT_QUEUE = _read(
    "RABBITMQ_INPUT_QUEUE",
    env.text,
    default="",
    description="Queue on RABBITMQ_URL that requests are taken from.",
)
BATCHER_DECLARE_INPUT_QUEUE = _read(
    "BATCHER_DECLARE_INPUT_QUEUE",
    env.flag,
    default="0",
    shown="off",
    description="Make the input queue when there is none, and one named `….rejected` for what is refused.",
)
BATCHER_INTAKE_PREFETCH = _read(
    "BATCHER_INTAKE_PREFETCH",
    env.whole_number(2, 2_000),
    default="1000",
    description="Messages that the broker hands out ahead; up to half of them are stored at once.",
)
OPENAI_API_KEY = _secret("OPENAI_API_KEY", env.text, description="Key of the first OpenAI account.")
OPENAI_BASE_URL = _read(
    "OPENAI_BASE_URL",
    env.web_url,
    default="https://api.openai.com/v1",
    description="OpenAI, or any server that speaks its Batch API.",
)
ANTHROPIC_API_KEY = _secret(
    "ANTHROPIC_API_KEY", env.text, description="Key of the first Anthropic account."
)
ANTHROPIC_BASE_URL = _read(
    "ANTHROPIC_BASE_URL",
    env.web_url,
    default="https://api.anthropic.com",
    description="Anthropic, or a server that speaks its Batch API.",
)
IS_DEMO = not (OPENAI_API_KEY or ANTHROPIC_API_KEY)

# How it behaves

BATCHER_POLL_SECONDS = _live(
    "BATCHER_POLL_SECONDS",
    env.whole_number(1, 86_400),
    default="60",
    description="Seconds between two looks at a running provider batch: more often at first, more rarely later.",
)
BATCHER_POLL_SLOWDOWN = _live(
    "BATCHER_POLL_SLOWDOWN",
    env.whole_number(1, 100),
    default="5",
    description="How many times as long the pause between two looks may get for a batch that runs for long.",
)
BATCHER_MAX_SPLITS = _live(
    "BATCHER_MAX_SPLITS",
    env.whole_number(0, 10_000),
    default="64",
    description="Rounds in which a refused batch and its parts may be taken apart to find bad lines, before the rest fails.",
)
BATCHER_MAX_WORKER_DEATHS = _live(
    "BATCHER_MAX_WORKER_DEATHS",
    env.whole_number(1, 100),
    default="5",
    description="Workers that may die in a row over one batch: then it is taken apart, or, at its creation, paused.",
)
BATCHER_MAX_WAIT_SECONDS = _live(
    "BATCHER_MAX_WAIT_SECONDS",
    env.whole_number(0, 604_800),
    default="3600",
    description="Seconds that a batch may build before it is sent.",
)
BATCHER_MAX_OVERTAKES = _live(
    "BATCHER_MAX_OVERTAKES",
    env.whole_number(0, 100_000),
    default="20",
    description="How often other batches may go in the stead of one that waits for room, before they wait for it.",
)
BATCHER_TOKEN_MARGIN_PERCENT = _live(
    "BATCHER_TOKEN_MARGIN_PERCENT",
    env.whole_number(0, 100),
    default="10",
    description="What is added to the counted tokens of a request, for what the provider counts beside its text.",
)
BATCHER_ALLOW_PRIVATE_DESTINATIONS = _read(
    "BATCHER_ALLOW_PRIVATE_DESTINATIONS",
    env.checked(env.listed, AddressGuard.opening),
    default="",
    shown="none; this computer while the sandbox is used by `make run`",
    description="Private networks or hosts that results may be sent to and providers be at, between commas.",
)
BATCHER_WEBHOOK_PORTS = _read(
    "BATCHER_WEBHOOK_PORTS",
    env.ports,
    default="80,443,8080,8443",
    description="Ports of webhooks, between commas; others only where BATCHER_ALLOW_PRIVATE_DESTINATIONS leads.",
)
BATCHER_WEBHOOK_ALLOW_HTTP = _read(
    "BATCHER_WEBHOOK_ALLOW_HTTP",
    env.flag,
    default="0",
    shown="off",
    description="Send webhooks without TLS to any host, not only to those that BATCHER_ALLOW_PRIVATE_DESTINATIONS names.",
)
BATCHER_WEBHOOK_CA_FILE = _read(
    "BATCHER_WEBHOOK_CA_FILE",
    env.certificates,
    default="",
    shown="the system's",
    description="PEM file of further certificate authorities that receivers' certificates may be signed by.",
)
BATCHER_WEBHOOK_MAX_INLINE_BYTES = _live(
    "BATCHER_WEBHOOK_MAX_INLINE_BYTES",
    env.whole_number(1_024, 100_000_000),
    default="262144",
    description="A larger result is sent to a webhook without its response's body, with a URL to fetch it.",
)
BATCHER_RABBITMQ_MAX_INLINE_BYTES = _live(
    "BATCHER_RABBITMQ_MAX_INLINE_BYTES",
    env.whole_number(1_024, 500_000_000),
    default="16000000",
    description="Likewise to RabbitMQ, which refuses messages of more than 16 MiB unless told otherwise.",
)
BATCHER_KEEP_ATTEMPTS_DAYS = _live(
    "BATCHER_KEEP_ATTEMPTS_DAYS",
    env.whole_number(1, 3_650),
    default="30",
    description="Days that attempts at delivery are kept.",
)
BATCHER_KEEP_EVENTS_DAYS = _live(
    "BATCHER_KEEP_EVENTS_DAYS",
    env.whole_number(1, 3_650),
    default="30",
    description="Days that events of batches and submissions are kept, to be sent again if need be.",
)
BATCHER_KEEP_REJECTIONS_DAYS = _live(
    "BATCHER_KEEP_REJECTIONS_DAYS",
    env.whole_number(1, 3_650),
    default="30",
    description="Days that messages refused by the input queue are kept, and queues that nobody reads.",
)
BATCHER_RETRY_DELAYS = _live(
    "BATCHER_RETRY_DELAYS",
    env.seconds,
    default=",".join(map(str, DEFAULT_DELAYS_S)),
    description="Seconds before each try at delivering a result, between commas; a destination may have its own.",
)
BATCHER_DESTINATION_IN_FLIGHT = _live(
    "BATCHER_DESTINATION_IN_FLIGHT",
    env.whole_number(1, 256),
    default="32",
    description="Webhooks under way at once to a destination that has no cap of its own.",
)
BATCHER_WORKER_THREADS = _read(
    "BATCHER_WORKER_THREADS",
    env.whole_number(1, 256),
    default="8",
    description="Tasks that one worker process does at once.",
)
BATCHER_WEB_PROCESSES = _read(
    "BATCHER_WEB_PROCESSES",
    env.whole_number(1, 64),
    default="1",
    description="Processes of the web server; more than one only on PostgreSQL.",
)
BATCHER_WEB_THREADS = _read(
    "BATCHER_WEB_THREADS",
    env.whole_number(1, 256),
    default="16",
    description="Calls that one web process answers at once, beside those that wait.",
)
BATCHER_WAITERS = _read(
    "BATCHER_WAITERS",
    env.whole_number(1, 512),
    default="32",
    description="Calls that may wait for an answer or a result in one web process; each has a thread of its own.",
)
BATCHER_WAITERS_PER_KEY_PERCENT = _read(
    "BATCHER_WAITERS_PER_KEY_PERCENT",
    env.whole_number(1, 100),
    default="75",
    description="How many of those `BATCHER_WAITERS` one API key may take.",
)
BATCHER_CALL_WAIT_SECONDS = _live(
    "BATCHER_CALL_WAIT_SECONDS",
    env.whole_number(0, 3_600),
    default="630",
    description="Seconds that a call of one request, like `/v1/responses`, waits when it does not say.",
)
BATCHER_SANDBOX_PORT = _read(
    "BATCHER_SANDBOX_PORT",
    env.whole_number(1, 65535),
    default="8001",
    description="Port of the sandbox; when it is taken, a free one is used.",
)
BATCHER_CALLS_PER_MINUTE = _live(
    "BATCHER_CALLS_PER_MINUTE",
    env.whole_number(0, 10_000_000),
    default="0",
    shown="0 (no limit)",
    description="Calls a minute for an API key that has no limit of its own.",
)
BATCHER_LINES_PER_MINUTE = _live(
    "BATCHER_LINES_PER_MINUTE",
    env.whole_number(0, 100_000_000),
    default="0",
    shown="0 (no limit)",
    description="Requests stored a minute for an API key that has no limit of its own.",
)
BATCHER_LOG_LEVEL = _read(
    "BATCHER_LOG_LEVEL",
    env.one_of("DEBUG", "INFO", "WARNING", "ERROR"),
    default="INFO",
    description="Least level of what is logged.",
)
DEBUG = _read(
    "DEBUG",
    env.flag,
    default="0",
    shown="off",
    description="Django's debug pages; they show secrets, so only for developing.",
)

DATABASES = {"default": database_settings(DATABASE_URL, DATA_DIR)}
if BATCHER_WEB_PROCESSES > 1 and "sqlite" in DATABASES["default"]["ENGINE"]:
    ENVIRONMENT.problems.append("BATCHER_WEB_PROCESSES must be 1 on SQLite: it has a single writer")
ENVIRONMENT.finish()

# Django

INSTALLED_APPS = [
    "unfold",
    "unfold.contrib.filters",
    "unfold.contrib.forms",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_fsm",
    "django_fsm_log",
    "django_celery_beat",
    "django_htmx",
    "batcher",
    "batching",
    "delivery",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "batcher.middleware.Scenes",
    "batcher.middleware.PagePolicy",
    "batcher.middleware.PageSessions",
    "django.middleware.common.CommonMiddleware",
    "batcher.middleware.PageCsrf",
    "batcher.middleware.PageLogins",
    "batcher.middleware.PageMessages",
    "batcher.middleware.PageFrames",
    "batcher.middleware.PageHtmx",
]
ROOT_URLCONF = "batcher.urls"
WSGI_APPLICATION = "batcher.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
APPEND_SLASH = False
if BATCHER_CORS_ORIGINS:
    INSTALLED_APPS.append("corsheaders")
    MIDDLEWARE.insert(0, "corsheaders.middleware.CorsMiddleware")
CORS_ALLOWED_ORIGINS = BATCHER_CORS_ORIGINS
CORS_URLS_REGEX = r"^/(api|v1)/"
CORS_ALLOW_HEADERS = ("authorization", "content-type", "content-encoding", "idempotency-key",
                      "prefer", "range", "x-api-key", "x-request-id", "x-batcher-account",
                      "x-batcher-custom-id", "x-batcher-deliver-by", "x-batcher-destination",
                      "x-batcher-max-wait", "x-batcher-priority", "x-batcher-wait",
                      "x-batcher-webhook-url")  # fmt: skip
CORS_EXPOSE_HEADERS = ("content-location", "idempotent-replayed", "link", "location", "preference-applied", "ratelimit-limit",
                       "ratelimit-remaining", "ratelimit-reset", "retry-after", "x-next-cursor",
                       "x-batcher-request-id", "x-request-id")  # fmt: skip
USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en"
USE_I18N = False
LOGGING = logging_settings(BATCHER_LOG_LEVEL)

# Static files come straight from the packages that own them: nothing to collect, nothing to go stale.
STATIC_URL = "/static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = False

# Security; plain HTTP is meant for this computer, anything else sits behind https.
IS_HTTPS = BATCHER_PUBLIC_URL.startswith("https://")
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = IS_HTTPS
LOGIN_REDIRECT_URL = "admin:index"  # for those who open the login page itself
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_AGE = 12 * 60 * 60
SESSION_COOKIE_NAME = "batcher_session"
CSRF_COOKIE_NAME = "batcher_csrf"
SECURE_HSTS_SECONDS = 60 * 60 if IS_HTTPS else 0
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
DATA_UPLOAD_MAX_MEMORY_SIZE = None  # intake measures bodies itself, as they stream

# The clock shows in the admin; its times are UTC like all others.
DJANGO_CELERY_BEAT_TZ_AWARE = True
