from __future__ import annotations

import json
from pathlib import Path

import pytest

from muster.errors import InvalidInput
from muster.laptop.environment import (
    DEFAULTS,
    MARKER,
    Installation,
    hostname,
    render_commands,
    render_environment,
)
from muster.laptop.home import Home, make_home, read_or_make_secrets, read_tail, write_private

SECRETS_NAMES = ("admin_password", "jwt_secret", "api_secret_key", "fernet_key")


@pytest.fixture
def installation(tmp_path) -> Installation:
    home = make_home(tmp_path / "home")
    return Installation(
        home=home,
        repository=Path("/repo"),
        dags_folder=Path("/repo/dags"),
        plugins_folder=Path("/repo/plugins"),
        port=8123,
        airflow_url="postgresql+psycopg2://a@/airflow",
        store_url="postgresql://a@/muster",
        secrets=read_or_make_secrets(home),
        settings={"AIRFLOW__CORE__PARALLELISM": "3"},
    )


def test_equal_arguments_give_equal_environments(installation):
    inherited = {"PATH": "/bin", "LANG": "C"}
    assert render_environment(installation, inherited) == render_environment(
        installation, inherited
    )


def test_environment_holds_the_installation_together(installation):
    environment = render_environment(installation, {"PATH": "/bin"})
    home = str(installation.home.folder)
    assert environment[MARKER] == environment["MUSTER_HOME"] == home
    assert environment["MUSTER_STORE_URL"] == "postgresql://a@/muster"
    assert environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] == "postgresql+psycopg2://a@/airflow"
    assert environment["AIRFLOW__CORE__DAGS_FOLDER"] == "/repo/dags"
    assert environment["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == (
        "http://127.0.0.1:8123/execution/"
    )
    assert environment["AIRFLOW__CORE__LOAD_EXAMPLES"] == "False"
    assert environment["PATH"].endswith(":/bin")


def test_byte_code_is_written_and_other_airflows_are_left_alone(installation):
    environment = render_environment(
        installation,
        {
            "PYTHONDONTWRITEBYTECODE": "1",
            "AIRFLOW_HOME": "/elsewhere",
            "AIRFLOW_CONFIG": "/elsewhere/airflow.cfg",
            "AIRFLOW__CORE__DAGS_FOLDER": "/elsewhere/dags",
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
        },
    )
    assert "PYTHONDONTWRITEBYTECODE" not in environment
    assert "AIRFLOW_CONFIG" not in environment
    assert not any("/elsewhere" in value for value in environment.values())
    assert environment["AIRFLOW__CORE__EXECUTOR"] == "LocalExecutor"


def test_users_settings_win_over_defaults_and_callers_over_both(installation):
    inherited = {
        "AIRFLOW__CORE__PARALLELISM": "5",
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "99",
    }
    environment = render_environment(installation, inherited)
    assert environment["AIRFLOW__CORE__PARALLELISM"] == "3"
    assert environment["AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT"] == "99"
    untouched = "AIRFLOW__DATABASE__SQL_ALCHEMY_POOL_SIZE"
    assert environment[untouched] == DEFAULTS[untouched]


def test_loopback_goes_past_proxies(installation):
    environment = render_environment(
        installation, {"HTTP_PROXY": "http://proxy:3128", "NO_PROXY": "intra"}
    )
    assert environment["NO_PROXY"] == environment["no_proxy"] == "intra,127.0.0.1,localhost"


def test_commands_listen_on_loopback_and_serve_no_logs(installation):
    commands = render_commands(installation, api_workers=2)
    assert list(commands) == ["api-server", "scheduler", "dag-processor", "triggerer"]
    api = commands["api-server"]
    assert api[api.index("--host") + 1] == "127.0.0.1"
    assert api[api.index("--port") + 1] == "8123"
    assert "--skip-serve-logs" in commands["scheduler"]
    assert "--skip-serve-logs" in commands["triggerer"]


def test_secrets_do_not_show_in_reprs(installation):
    shown = repr(installation)
    for name in SECRETS_NAMES:
        assert getattr(installation.secrets, name) not in shown
    assert "postgresql" not in shown


def test_hostname_is_loopback():
    assert hostname() == "localhost"


def test_secrets_are_kept_private_and_differ(tmp_path):
    home = make_home(tmp_path / "a")
    first = read_or_make_secrets(home)
    assert read_or_make_secrets(home) == first
    assert json.loads(home.passwords.read_text()) == {"admin": first.admin_password}
    for name in ("secrets.json", "passwords.json"):
        assert (home.folder / name).stat().st_mode & 0o777 == 0o600
    other = read_or_make_secrets(make_home(tmp_path / "b"))
    for name in SECRETS_NAMES:
        assert getattr(other, name) != getattr(first, name)


def test_broken_secrets_are_named(tmp_path):
    home = make_home(tmp_path)
    (tmp_path / "secrets.json").write_text('{"jwt_secret": ')
    with pytest.raises(InvalidInput, match=r"secrets\.json"):
        read_or_make_secrets(home)


def test_home_is_closed_to_others(tmp_path):
    home = make_home(tmp_path / "deep" / "home")
    assert home.folder.stat().st_mode & 0o077 == 0
    write_private(home.folder / "x", "secret")
    assert (home.folder / "x").stat().st_mode & 0o077 == 0
    assert [entry.name for entry in home.folder.iterdir() if entry.name.startswith(".")] == []


def test_home_in_a_file_is_an_error_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="file"):
        make_home(tmp_path / "file" / "home")


def test_tail_of_a_long_log_is_its_end(tmp_path):
    log = tmp_path / "x.log"
    log.write_text("".join(f"line {number}\n" for number in range(100_000)))
    assert read_tail(log, 2) == "line 99998\nline 99999"
    assert read_tail(tmp_path / "absent") == ""
    assert Home(tmp_path).log("x").name == "x.log"
