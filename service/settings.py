"""The settings: each one an environment variable, a key of the settings file, and a flag."""

import os
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

ENV_PREFIX = "OOD_"
SETTINGS_FILE_ENV = "OOD_SETTINGS"


class SettingsError(Exception):
    """The settings cannot be used; the message names each wrong one, the reason and the remedy."""


class Settings(BaseSettings):
    """Everything that can be configured. Frozen; validated once at start."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, env_ignore_empty=True, extra="forbid", frozen=True)

    host: Annotated[str, Field(description="Address to listen on.", min_length=1)] = "127.0.0.1"
    port: Annotated[int, Field(description="Port to listen on; 0 takes a free one.", ge=0, le=65535)] = 8000
    grpc_port: Annotated[
        int | None,
        Field(
            description="Port for the Open Inference Protocol over gRPC (the extra grpc); 0 takes a free one. None: no "
            "gRPC.",
            ge=0,
            le=65535,
        ),
    ] = None
    models: Annotated[
        str,
        Field(description="Model repository: a folder of <name>/<version>/ bundles, or its URI (s3://, gs://, hf://)."),
    ] = "models"
    models_cache: Annotated[
        Path | None,
        Field(description="Folder for the copy of a repository that is given by URI. None: in the user's cache."),
    ] = None
    workers: Annotated[
        int,
        Field(
            description="Processes that serve on the one port, each the whole service with its own engines, queues and "
            "limits and its share of the cores.",
            ge=1,
            le=256,
        ),
    ] = 1
    provider: Annotated[
        Literal["auto", "cpu", "cuda", "tensorrt"],
        Field(description="ONNX Runtime provider. auto: CUDA where it works, else CPU; the others are required."),
    ] = "auto"
    cuda_graphs: Annotated[
        bool,
        Field(
            description="On CUDA, record the kernels of each batch size of an image model, and launch them as one. A "
            "model that does not allow it, or gives other scores by it, is served without, and the log says why."
        ),
    ] = False
    threads: Annotated[
        int, Field(description="Threads that one model's engine computes with; 0: all available cores.", ge=0, le=1024)
    ] = 0
    alpha: Annotated[
        float | None,
        Field(description="False-flag rate that replaces every bundle's default.", gt=0, lt=1, allow_inf_nan=False),
    ] = None
    max_body_bytes: Annotated[int, Field(description="Largest request body.", ge=1)] = 32 * 2**20
    max_pending_bytes: Annotated[
        int, Field(description="Bytes of all bodies in progress; a request beyond them is answered 503.", ge=1)
    ] = 512 * 2**20
    max_inputs: Annotated[int, Field(description="Most inputs in one request.", ge=1)] = 256
    max_pixels: Annotated[int, Field(description="Largest image, width x height, checked before decoding.", ge=1)] = (
        50_000_000
    )
    max_text_chars: Annotated[int, Field(description="Longest text, in characters.", ge=1)] = 100_000
    queue_size: Annotated[int, Field(description="Inputs that may wait per model; more are answered 503.", ge=1)] = 1024
    max_batch: Annotated[
        int, Field(description="Most inputs in one call of the engine; warming up may settle for fewer.", ge=1, le=4096)
    ] = 64
    batch_ms: Annotated[
        int,
        Field(description="Longest time that one call of the engine should take; larger batches are split.", ge=1),
    ] = 250
    timeout_ms: Annotated[
        int,
        Field(description="Deadline of a request once its body is read; its own timeout_ms can only be less.", ge=1),
    ] = 10_000
    receive_timeout_seconds: Annotated[
        float,
        Field(
            description="Longest wait for a request's headers, and for the next part of its body.",
            gt=0,
            le=3600,
            allow_inf_nan=False,
        ),
    ] = 30.0
    grace_seconds: Annotated[
        float,
        Field(description="After SIGTERM, how long accepted requests may still take.", ge=0, allow_inf_nan=False),
    ] = 30.0
    reload: Annotated[
        Literal["off", "poll", "admin"],
        # YAML reads an unquoted `off` as false.
        BeforeValidator(lambda value: "off" if value is False else value),
        Field(description="Serve new versions without a restart: by looking for them, or when an admin call asks."),
    ] = "off"
    reload_seconds: Annotated[
        float, Field(description="Seconds between two looks (reload=poll).", gt=0, allow_inf_nan=False)
    ] = 5.0
    api_keys_file: Annotated[
        Path | None,
        Field(description="API keys, one `NAME sha256:HEX` a line (see new-key); read again when changed. None: open."),
    ] = None
    admin_keys_file: Annotated[
        Path | None,
        Field(description="Keys of admin calls, in a file like the API keys'. None: there are no such calls."),
    ] = None
    listen_when_ready: Annotated[
        bool,
        Field(
            description="Open the port only once the models are warm, for load balancers that learn of a starting "
            "replica from a refused connection and not from /readyz."
        ),
    ] = False
    otlp_endpoint: Annotated[
        str | None,
        Field(
            description="OpenTelemetry collector that traces are sent to (OTLP over HTTP), as in "
            "http://collector:4318. None: no traces.",
            pattern=r"^https?://",
        ),
    ] = None
    log_format: Annotated[Literal["console", "json"], Field(description="How log lines look.")] = "console"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Field(description="Least severe lines logged.")
    ] = "info"
    access_log: Annotated[bool, Field(description="Log a line per request (probes and /metrics at debug).")] = True

    @model_validator(mode="after")
    def _refuse_what_cannot_be_together(self) -> Self:
        if self.workers > 1 and (self.admin_keys_file is not None or self.reload == "admin"):
            raise ValueError(
                f"{env_name('workers')} ({self.workers}) leaves no room for {env_name('admin_keys_file')} and "
                f"{env_name('reload')} = admin: an admin call would reach one worker only. Serve new versions with "
                f"{env_name('reload')} = poll, reset drift evidence with SIGUSR1 to the service, or run one worker."
            )
        if self.workers > 1 and self.grpc_port == 0:
            raise ValueError(
                f"{env_name('grpc_port')} = 0 would be another port in each of {env_name('workers')} ({self.workers}): "
                "name one."
            )
        if self.reload == "admin" and self.admin_keys_file is None:
            raise ValueError(
                f"{env_name('reload')} = admin needs {env_name('admin_keys_file')}: without keys there are no admin "
                "calls. Name a file of keys, or take poll."
            )
        if self.max_body_bytes > self.max_pending_bytes:
            raise ValueError(
                f"{env_name('max_body_bytes')} ({self.max_body_bytes}) is more than {env_name('max_pending_bytes')} "
                f"({self.max_pending_bytes}): the largest body could never be read. Raise the one or lower the other."
            )
        if self.max_inputs > self.queue_size:
            raise ValueError(
                f"{env_name('max_inputs')} ({self.max_inputs}) is more than {env_name('queue_size')} "
                f"({self.queue_size}): the largest request could never be queued. Raise the one or lower the other."
            )
        return self


def env_name(name: str) -> str:
    """The environment variable of the setting `name`: `port` -> `OOD_PORT`."""
    return ENV_PREFIX + name.upper()


def flag_name(name: str) -> str:
    """The command-line flag of the setting `name`: `max_batch` -> `--max-batch`."""
    return "--" + name.replace("_", "-")


def load_settings(flags: Mapping[str, Any] | None = None, file: Path | None = None) -> Settings:
    """Settings from `flags`, else the environment, else the settings `file`, else the defaults.

    `file` (YAML, or TOML by its suffix) defaults to `OOD_SETTINGS`. Raises `SettingsError`.
    """
    if file is None and os.environ.get(SETTINGS_FILE_ENV):
        file = Path(os.environ[SETTINGS_FILE_ENV])
    in_file = {} if file is None else _read(file)

    class Sourced(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
            file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return init_settings, env_settings, InitSettingsSource(settings_cls, in_file)

    try:
        sourced = Sourced(**(flags or {}))
    except ValidationError as error:
        raise SettingsError(_explain(error)) from error
    return Settings.model_construct(**{name: getattr(sourced, name) for name in Settings.model_fields})


def unknown_variables(environ: Mapping[str, str]) -> dict[str, str | None]:
    """Variables that look like settings but are none, each with the setting that may have been meant."""
    known = [env_name(name) for name in Settings.model_fields]
    strange = [
        name for name in environ if name.startswith(ENV_PREFIX) and name not in known and name != SETTINGS_FILE_ENV
    ]
    return {name: next(iter(get_close_matches(name, known, 1)), None) for name in sorted(strange)}


def _read(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text(encoding="utf-8")
        content = tomllib.loads(text) if file.suffix == ".toml" else yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"Settings file {file} cannot be read: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise SettingsError(f"Settings file {file} must be a mapping of settings, for example `port: 8000`.")
    for key in content:
        if key not in Settings.model_fields:
            near = get_close_matches(str(key), list(Settings.model_fields), 1)
            hint = f" Did you mean {near[0]!r}?" if near else " `--help` lists every setting."
            raise SettingsError(f"Settings file {file}: there is no setting {key!r}.{hint}")
    return content


def _explain(error: ValidationError) -> str:
    lines = []
    for each in error.errors():
        message = each["msg"].removeprefix("Value error, ")
        where = ".".join(str(part) for part in each["loc"])
        lines.append(f"{env_name(where)} = {each['input']!r}: {message}" if where else message)
    return "\n".join(lines)
