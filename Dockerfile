# syntax=docker/dockerfile:1
# One image for web, worker and clock: `python manage.py run web`, `… worker`, `… clock`.

FROM python:3.13-slim-bookworm AS packages
COPY --from=ghcr.io/astral-sh/uv:0.13.8 /uv /usr/local/bin/uv
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PROJECT_ENVIRONMENT=/opt/batcher
WORKDIR /app
COPY pyproject.toml uv.lock ./
RUN uv sync --frozen --no-dev

FROM python:3.13-slim-bookworm
RUN useradd --create-home --uid 10001 batcher && install -d -o batcher -g batcher /data
COPY --from=packages /opt/batcher /opt/batcher
WORKDIR /app
COPY --chown=root:root . .
ENV PATH=/opt/batcher/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    DATA_DIR=/data BATCHER_HOST=0.0.0.0 PORT=8000
USER batcher
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD \
    ["python", "-c", "import os, urllib.request as u; u.urlopen(u.Request('http://127.0.0.1:' + os.environ['PORT'] + '/ready', headers={'Host': 'localhost'}), timeout=4)"]
CMD ["python", "manage.py", "run"]
