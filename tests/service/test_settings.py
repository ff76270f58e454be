"""Settings: the precedence of flags, environment, file and defaults, and the messages for mistakes."""

import os
from pathlib import Path

import pytest

from service import Settings, SettingsError, load_settings
from service.cli import parse_arguments
from service.settings import default_text, env_name, flag_name, unknown_variables


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("OOD_"):
            monkeypatch.delenv(name)


def test_a_flag_beats_the_environment_which_beats_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("port: 1\nmax_batch: 2\nalpha: 0.2\n")
    monkeypatch.setenv("OOD_PORT", "3")
    monkeypatch.setenv("OOD_MAX_BATCH", "4")
    flags, path = parse_arguments(["--port", "5", "--settings", str(file)])
    settings = load_settings(flags, path)
    assert (settings.port, settings.max_batch, settings.alpha, settings.host) == (5, 4, 0.2, "127.0.0.1")
    assert type(settings) is Settings


def test_a_variable_beats_the_file_in_any_case_of_letters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("port: 1\n")
    monkeypatch.setenv("ood_port", "3")
    assert load_settings(file=file).port == 3


def test_an_empty_variable_does_not_beat_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("port: 1\n")
    monkeypatch.setenv("OOD_PORT", "")
    assert load_settings(file=file).port == 1


def test_the_file_may_be_toml_and_named_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('log_format = "json"\naccess_log = false\n')
    monkeypatch.setenv("OOD_SETTINGS", str(file))
    settings = load_settings()
    assert (settings.log_format, settings.access_log) == ("json", False)


def test_every_setting_has_a_flag_and_is_explained_by_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parse_arguments(["--help"])
    assert end.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for name, field in Settings.model_fields.items():
        assert flag_name(name) in text
        assert env_name(name) in text
        assert str(field.description) in text
        assert f"[default {default_text(field)}; env {env_name(name)}]" in text


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"port": "http"}, "OOD_PORT = 'http'"),
        ({"port": "70000"}, "OOD_PORT = '70000'"),
        ({"alpha": "1"}, "OOD_ALPHA = '1'"),
        ({"alpha": "nan"}, "OOD_ALPHA = 'nan'"),
        ({"provider": "gpu"}, "OOD_PROVIDER = 'gpu'"),
        ({"max_inputs": "9", "queue_size": "8"}, "OOD_MAX_INPUTS (9) is more than OOD_QUEUE_SIZE (8)"),
        (
            {"max_body_bytes": "9", "max_pending_bytes": "8"},
            "OOD_MAX_BODY_BYTES (9) is more than OOD_MAX_PENDING_BYTES",
        ),
        ({"workers": "0"}, "OOD_WORKERS = '0'"),
        ({"workers": "2", "reload": "admin"}, "OOD_WORKERS (2) cannot be combined with OOD_ADMIN_KEYS_FILE"),
        ({"workers": "2", "admin_keys_file": "keys"}, "reset drift evidence with SIGUSR1 to the service"),
        ({"reload": "true"}, "OOD_RELOAD = 'true': Input should be 'off', 'poll' or 'admin'"),
        ({"reload": "admin"}, "OOD_RELOAD = admin needs OOD_ADMIN_KEYS_FILE"),
        ({"reload_seconds": "0"}, "OOD_RELOAD_SECONDS = '0'"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(flags: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError) as error:
        load_settings(flags)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.yaml", "prot: 1", "there is no setting 'prot'. Did you mean 'port'?"),
        ("a.yaml", "- port", "must be a mapping"),
        ("a.yaml", "a: [", "cannot be read"),
        ("a.toml", "port: 1", "cannot be read"),
        ("a.yaml", "models: 2024-13-45", "cannot be read"),
        ("a.yaml", "port: \udcff", "cannot be read"),
    ],
)
def test_a_wrong_settings_file_is_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    file = tmp_path / name
    file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(SettingsError, match=name) as error:
        load_settings(file=file)
    assert message in str(error.value)


def test_origins_are_compared_as_browsers_write_them() -> None:
    origins = "https://A.example.com,https://b.example.com:443,http://c.example.com:80,http://d.example.com:443,*"
    expected = "https://a.example.com,https://b.example.com,http://c.example.com,http://d.example.com:443,*"
    assert load_settings({"cors_origins": origins}).cors_origins == tuple(expected.split(","))


def test_a_missing_settings_file_is_refused_and_an_empty_one_accepted(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings(file=tmp_path / "none.yaml")
    (tmp_path / "empty.yaml").touch()
    assert load_settings(file=tmp_path / "empty.yaml") == Settings()


def test_an_unquoted_off_is_a_choice_in_yaml(tmp_path: Path) -> None:
    (tmp_path / "off.yaml").write_text("reload: off\n")
    assert load_settings(file=tmp_path / "off.yaml").reload == "off"


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OOD_ALPHA", "")
    assert load_settings().alpha is None


def test_an_unknown_variable_is_reported_with_the_closest_setting() -> None:
    environ = {"OOD_APLHA": "0.1", "OOD_SETTINGS": "x", "OOD_PORT": "1", "PATH": "/bin", "OOD_ZZZ": ""}
    assert unknown_variables(environ) == {"OOD_APLHA": "OOD_ALPHA", "OOD_ZZZ": None}


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OOD_PORT", "tcp://10.43.0.1:8000"),
        ("OOD_GRPC_PORT", "udp://10.43.0.1:8000"),
        ("OOD_PORT", "tcp://[fd00::1]:80"),
    ],
)
def test_a_kubernetes_service_link_is_named_in_the_message(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=rf"{variable} = .*service link.*enableServiceLinks: false"):
        load_settings()


def test_other_variables_of_service_links_and_of_the_project_are_not_reported() -> None:
    links = {
        "OOD_SERVICE_HOST": "10.43.0.1",
        "OOD_SERVICE_PORT": "8000",
        "OOD_SERVICE_PORT_HTTP": "8000",
        "OOD_PORT_8000_TCP": "tcp://10.43.0.1:8000",
        "OOD_PORT_8000_TCP_PROTO": "tcp",
        "OOD_PORT_8000_TCP_PORT": "8000",
        "OOD_PORT_8000_TCP_ADDR": "10.43.0.1",
        "OOD_SCORING_SERVICE_HOST": "10.43.0.1",
        "OOD_SCORING_PORT": "tcp://10.43.0.1:8000",
        "OOD_SCORING_PORT_8000_UDP_ADDR": "10.43.0.1",
    }
    assert unknown_variables(links | {"OOD_KEY": "secret", "OOD_DATA": "data"}) == {}
    assert unknown_variables({"OOD_PROT": "1", "OOD_SERVICE": "x"}).keys() == {"OOD_PROT", "OOD_SERVICE"}
