"""A wrong environment stops the start with one line for each variable; a right one is taken as said."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from batcher import env
from batcher.databases import database_settings
from tests.wiring.processes import environment, run_manage

WRONG = [
    pytest.param({"PORT": "http"}, "PORT must be a whole number from 1 to 65535", id="port-word"),
    pytest.param({"PORT": "70000"}, "PORT must be a whole number from 1 to 65535", id="port-high"),
    pytest.param({"DEBUG": "maybe"}, "DEBUG must be 1, true", id="flag"),
    pytest.param({"BATCHER_POLL_SECONDS": "0"}, "BATCHER_POLL_SECONDS must be", id="poll"),
    pytest.param({"BATCHER_MAX_WAIT_SECONDS": "-1"}, "BATCHER_MAX_WAIT_SECONDS must be", id="wait"),
    pytest.param({"BATCHER_LOG_LEVEL": "LOUD"}, "BATCHER_LOG_LEVEL must be one of", id="level"),
    pytest.param({"DATABASE_URL": "mysql://u:hush@h/d"}, "DATABASE_URL must be like", id="db"),
    pytest.param({"DATABASE_URL": "hush"}, "DATABASE_URL must be like", id="db-no-url"),
    pytest.param({"CELERY_BROKER_URL": "sqs://hush@x"}, "CELERY_BROKER_URL must be", id="broker"),
    pytest.param({"RABBITMQ_URL": "http://hush@x"}, "RABBITMQ_URL must be a URL", id="rabbitmq"),
    pytest.param({"OPENAI_BASE_URL": "api.openai"}, "OPENAI_BASE_URL must be", id="base-url"),
    pytest.param({"BATCHER_ENCRYPTION_KEYS": "hush"}, "BATCHER_ENCRYPTION_KEYS must be", id="keys"),
    pytest.param(
        {"BATCHER_BOOTSTRAP_API_KEY": "hush"}, "BATCHER_BOOTSTRAP_API_KEY must have 32", id="short"
    ),
    pytest.param(
        {"SECRET_KEY_FILE": "/no/file"}, "SECRET_KEY_FILE must name a readable", id="file"
    ),
    pytest.param({"DATA_DIR": "/dev/null/x"}, "DATA_DIR must be a folder that this", id="data-dir"),
    pytest.param({"BATCHER_WEBHOOK_PORTS": "443,x"}, "BATCHER_WEBHOOK_PORTS must be", id="ports"),
    pytest.param(
        {"BATCHER_RETRY_DELAYS": "0,5,-1"}, "BATCHER_RETRY_DELAYS must be 1 to 100", id="delays"
    ),
    pytest.param(
        {"BATCHER_WEBHOOK_CA_FILE": __file__}, "BATCHER_WEBHOOK_CA_FILE must name", id="ca-file"
    ),
    pytest.param({"BATCHER_WEB_PROCESSES": "2"}, "BATCHER_WEB_PROCESSES must be 1", id="processes"),
]


@pytest.mark.parametrize(("wrong", "line"), WRONG)
def test_a_wrong_value_is_one_line_that_names_its_variable(tmp_path: Path, wrong: dict, line: str):
    run = run_manage("check", env=environment(tmp_path) | wrong)

    assert run.returncode == 1
    assert run.stderr.startswith(f"batcher: {line}")
    assert run.stderr.count("\n") == 1
    assert "hush" not in run.stderr


def test_all_problems_are_shown_together(tmp_path: Path):
    wrong = {"PORT": "x", "DEBUG": "x", "BATCHER_ENCRYPTION_KEYS": "x"}

    run = run_manage("run", env=environment(tmp_path, **wrong))

    assert run.returncode == 1
    assert {line.split()[1] for line in run.stderr.splitlines()} == set(wrong)


def test_a_secret_may_stand_in_a_file(tmp_path: Path):
    file = tmp_path / "key"
    file.write_text("hush\n")
    reader = env.Environment({"API_KEY_FILE": str(file)})

    assert reader.secret("API_KEY", env.text, description="A key.") == "hush"
    reader.finish()


def test_a_secret_given_twice_is_refused(tmp_path: Path):
    file = tmp_path / "key"
    file.write_text("hush")
    reader = env.Environment({"API_KEY_FILE": str(file), "API_KEY": "other"})
    reader.secret("API_KEY", env.text, description="A key.")

    with pytest.raises(env.WrongEnvironment, match="API_KEY and API_KEY_FILE are both set"):
        reader.finish()


def test_an_unset_variable_and_an_empty_one_mean_the_default():
    for source in ({}, {"PORT": ""}, {"PORT": " "}):
        reader = env.Environment(source)
        port = reader.read("PORT", env.whole_number(1, 9999), default="8000", description="Port.")
        assert port == 8000


def test_a_missing_secret_is_made_once_and_only_its_owner_reads_it(tmp_path: Path):
    path = tmp_path / "secrets" / "encryption.key"

    first = env.keep_secret(path, lambda: Fernet.generate_key().decode())
    second = env.keep_secret(path, lambda: Fernet.generate_key().decode())

    assert first == second == path.read_text().strip()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert list(path.parent.iterdir()) == [path]


def test_sqlite_waits_its_turn_and_survives_a_power_cut(tmp_path: Path):
    options = database_settings("", tmp_path)["OPTIONS"]

    assert options["transaction_mode"] == "IMMEDIATE"
    assert "journal_mode=WAL" in options["init_command"]
    assert "synchronous=FULL" in options["init_command"]


def test_readmes_table_holds_every_variable_as_it_is_declared(tmp_path: Path):
    run = run_manage("environment", "--check", env=environment(tmp_path))

    assert run.returncode == 0, run.stderr


def test_the_environment_command_prints_readmes_table(tmp_path: Path):
    run = run_manage("environment", env=environment(tmp_path))

    assert run.returncode == 0
    assert "| `PORT` | `8000` | Port of the web server. |" in run.stdout
    assert "`OPENAI_API_KEY`, `OPENAI_API_KEY_FILE`" in run.stdout
