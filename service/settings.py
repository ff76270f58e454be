"""The settings of the service, from command-line flags, environment variables and a settings file."""

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, NoDecode, SettingsConfigDict

from service.memory_limit import DefaultLimits, default_limits_here

ENV_PREFIX = "OOD_"
SETTINGS_FILE_ENV = "OOD_SETTINGS"


ProviderChoice = Literal["auto", "cpu", "cuda"]
"""The values of the setting `provider`."""

_OTHER_VARIABLES = (SETTINGS_FILE_ENV, "OOD_KEY", "OOD_DATA")
"""Variables with the prefix that belong to commands in the documentation and to the Makefile."""

_LINK_NAME = re.compile(rf"{ENV_PREFIX}(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)")
_LINK_ADDRESS = re.compile(r"(tcp|udp|sctp)://")
_HOST_NAME = re.compile(r"(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_ORIGIN = re.compile(r"https?://[A-Za-z0-9_.\[\]:-]+")


class SettingsError(Exception):
    """Raised for wrong settings; the message names each of them, the reason and the remedy."""


def _split(value: object) -> object:
    """The items of a comma-separated list."""
    return [item.strip() for item in value.split(",") if item.strip()] if isinstance(value, str) else value


def _read_pairs(value: Any) -> Any:
    """`a=b,c=d` as a mapping; other values unchanged."""
    if not isinstance(value, str):
        return value
    pairs = [pair.partition("=") for pair in value.split(",") if pair.strip()]
    if any(not separator for _, separator, _ in pairs):
        raise ValueError("must be NAME=PROVIDER, separated by commas")
    return {name.strip(): choice.strip() for name, _, choice in pairs}


class Settings(BaseSettings):
    """All settings. Immutable, validated once at startup; the descriptions are shown by `--help`."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, env_ignore_empty=True, extra="forbid", frozen=True)

    host: Annotated[str, Field(description="Address to listen on.", min_length=1)] = "127.0.0.1"
    port: Annotated[int, Field(description="Port to listen on; 0 takes a free one.", ge=0, le=65535)] = 8000
    grpc_port: Annotated[
        int | None,
        Field(
            description="Port for the Open Inference Protocol over gRPC (needs the extra grpc); 0 takes a free one. "
            "None: no gRPC.",
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
        Field(description="Folder for the copy of a repository whose `models` is a URI. None: in the user's cache."),
    ] = None
    workers: Annotated[
        int,
        Field(
            description="Processes that serve on the same port. Each is a complete service with its own engines, "
            "queues and limits, and gets an equal share of the cores.",
            ge=1,
            le=256,
        ),
    ] = 1
    engine_process: Annotated[
        Literal["auto", "on", "off"],
        # YAML reads unquoted `on` and `off` as booleans.
        BeforeValidator(lambda value: ("on" if value else "off") if isinstance(value, bool) else value),
        Field(
            description="Whether one process computes for all workers, which hand it inputs in shared memory. auto: "
            "with several workers on CUDA; otherwise each worker has its own engines."
        ),
    ] = "auto"
    provider: Annotated[
        ProviderChoice,
        Field(description="ONNX Runtime provider. auto: CUDA where it works, else CPU; the others are required."),
    ] = "auto"
    model_providers: Annotated[
        dict[str, ProviderChoice],
        NoDecode,
        BeforeValidator(_read_pairs),
        Field(
            description="Providers of single models, as in `ptb-char-qrnn=cpu,sst-gru=auto`; the other models use "
            "`provider`."
        ),
    ] = {}
    cuda_device: Annotated[
        int, Field(description="On CUDA, the index of the GPU among those that the process can see.", ge=0)
    ] = 0
    cuda_memory_mb: Annotated[
        int | None,
        Field(
            description="On CUDA, most GPU memory of one session in MiB; an image model has a session for each of its "
            "batch sizes. None: no limit.",
            ge=1,
        ),
    ] = None
    cuda_tf32: Annotated[
        bool,
        Field(
            description="On CUDA, let float32 products be rounded to TF32 (10 bits): faster convolutions, and scores "
            "that differ by about a thousandth from those that the thresholds come from."
        ),
    ] = False
    cuda_nhwc: Annotated[
        bool, Field(description="On CUDA, compute convolutions in the layout NHWC, which suits float16 models.")
    ] = False
    cuda_convolution_search: Annotated[
        Literal["heuristic", "exhaustive"],
        Field(
            description="On CUDA, how cuDNN chooses the kernels of convolutions: by its heuristic mode A, or by the "
            "slower mode B."
        ),
    ] = "heuristic"
    cuda_graphs: Annotated[
        bool,
        Field(
            description="On CUDA, run image models by CUDA graphs: the kernels of a batch size are recorded and "
            "launched together. A model that does not support them, or scores differently with them, is served "
            "without; the log says why."
        ),
    ] = False
    threads: Annotated[
        int, Field(description="Threads of one model's engine; 0: all available cores.", ge=0, le=1024)
    ] = 0
    alpha: Annotated[
        float | None,
        Field(description="False-flag rate that replaces every bundle's default.", gt=0, lt=1, allow_inf_nan=False),
    ] = None
    max_body_bytes: Annotated[int, Field(description="Largest request body.", ge=1)] = 32 * 2**20
    max_pending_bytes: int = Field(
        default_factory=lambda data: _default_limits(data).max_pending_bytes,
        description="Bytes of all request bodies in progress; more are answered 503.",
        ge=1,
        json_schema_extra={"default": "a twelfth of the memory, at most 512 MiB"},
    )
    max_inputs: Annotated[int, Field(description="Most inputs in one request.", ge=1)] = 256
    max_pixels: int = Field(
        default_factory=lambda data: _default_limits(data).max_pixels,
        description="Largest image, width x height, checked before decoding.",
        ge=1,
        json_schema_extra={"default": "by memory: 14,900,000 with 2 GiB and 2 cores, at most 50,000,000"},
    )
    decode_threads: int = Field(
        default_factory=lambda data: _default_limits(data).decode_threads,
        description="Threads that decode images and encode texts.",
        ge=1,
        le=64,
        json_schema_extra={"default": "one per core and per 512 MiB of memory, at most 4"},
    )
    max_request_pixels: Annotated[
        int | None, Field(description="Most pixels of all images of one request. None: 10 x max_pixels.", ge=1)
    ] = None
    max_text_chars: Annotated[int, Field(description="Longest text, in characters.", ge=1)] = 100_000
    max_request_chars: Annotated[
        int | None, Field(description="Most characters of all texts of one request. None: 10 x max_text_chars.", ge=1)
    ] = None
    queue_size: Annotated[int, Field(description="Inputs that may wait per model; more are answered 503.", ge=1)] = 1024
    max_batch: Annotated[
        int | None,
        Field(
            description="Most inputs in one engine call; the warm-up may choose fewer. None: 64, on a GPU 256.",
            ge=1,
            le=4096,
        ),
    ] = None
    batch_ms: Annotated[
        int,
        Field(description="Longest time that one engine call should take; larger batches are split.", ge=1),
    ] = 250
    timeout_ms: Annotated[
        int,
        Field(description="Deadline of a request after its body is read; its own timeout_ms can only be less.", ge=1),
    ] = 10_000
    stall_seconds: Annotated[
        float,
        Field(
            description="An engine call that takes longer, and ten times longer than planned, is stalled: it is asked "
            "to end, and /readyz answers 503 until it does.",
            gt=0,
            allow_inf_nan=False,
        ),
    ] = 30.0
    stall_exit_seconds: Annotated[
        float,
        Field(
            description="Once a stalled engine call has taken this time, the service drains and ends with exit code "
            "70, to be restarted; 0: never.",
            ge=0,
            allow_inf_nan=False,
        ),
    ] = 120.0
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
        Field(description="Serve new versions without a restart. poll: look for them; admin: when an admin call asks."),
    ] = "off"
    reload_seconds: Annotated[
        float, Field(description="Seconds between two looks (reload=poll).", gt=0, allow_inf_nan=False)
    ] = 5.0
    api_keys_file: Annotated[
        Path | None,
        Field(
            description="API keys, one `NAME sha256:HEX` a line (see new-key); read again when changed. None: requests "
            "need no key."
        ),
    ] = None
    admin_keys_file: Annotated[
        Path | None,
        Field(description="Keys for admin calls, in the format of the API keys. None: no admin calls."),
    ] = None
    allowed_hosts: Annotated[
        tuple[str, ...],
        NoDecode,
        BeforeValidator(_split),
        Field(
            description="Names in the header Host, separated by commas; `*.example.com` for all below it. Others are "
            "answered 421. Addresses and localhost are always allowed. Empty: any name."
        ),
    ] = ()
    cors_origins: Annotated[
        tuple[str, ...],
        NoDecode,
        BeforeValidator(_split),
        Field(
            description="Origins of web pages that may call the service, separated by commas, for example "
            "https://app.example.com; `*` for all. Empty: none."
        ),
    ] = ()
    listen_when_ready: Annotated[
        bool,
        Field(
            description="Open the port only once the models are warm, for load balancers that detect a starting "
            "replica by refused connections instead of /readyz."
        ),
    ] = False
    otlp_endpoint: Annotated[
        str | None,
        Field(
            description="OpenTelemetry collector to send traces to (OTLP over HTTP), for example "
            "http://collector:4318. None: no traces.",
            pattern=r"^https?://",
        ),
    ] = None
    log_format: Annotated[Literal["console", "json"], Field(description="Format of log lines.")] = "console"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Field(description="Lowest severity that is logged.")
    ] = "info"
    access_log: Annotated[bool, Field(description="Log a line per request (probes, /metrics: at level debug).")] = True

    @field_validator("allowed_hosts")
    @classmethod
    def _check_hosts(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not _HOST_NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no host name. Give names without scheme and port, like api.example.com.")
        return tuple(name.lower() for name in names)

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"{origin!r} is no origin. Give scheme, host and port without a path, like https://app.example.com."
                )
        return tuple(_as_browsers_write(origin) for origin in origins)

    @model_validator(mode="after")
    def _refuse_conflicts(self) -> Self:
        if self.workers > 1 and (self.admin_keys_file is not None or self.reload == "admin"):
            raise ValueError(
                f"{env_name('workers')} ({self.workers}) cannot be combined with {env_name('admin_keys_file')} or "
                f"{env_name('reload')} = admin: an admin call would reach one worker only. Serve new versions with "
                f"{env_name('reload')} = poll, reset drift evidence with SIGUSR1 to the service, or run one worker."
            )
        if self.workers > 1 and self.grpc_port == 0:
            raise ValueError(
                f"{env_name('grpc_port')} = 0 would take a different port in each of {env_name('workers')} "
                f"({self.workers}): set a port."
            )
        if self.reload == "admin" and self.admin_keys_file is None:
            raise ValueError(
                f"{env_name('reload')} = admin needs {env_name('admin_keys_file')}: without keys there are no admin "
                "calls. Name a key file, or use poll."
            )
        if 0 < self.stall_exit_seconds < self.stall_seconds:
            raise ValueError(
                f"{env_name('stall_exit_seconds')} ({self.stall_exit_seconds:g}) is less than "
                f"{env_name('stall_seconds')} ({self.stall_seconds:g}): the process would end before it is not ready. "
                "Raise the one or lower the other."
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


def _default_limits(data: Mapping[str, Any]) -> DefaultLimits:
    """The default limits, from the validated values of the fields above."""
    limits = default_limits_here(data.get("workers", 1))
    # A body limit that is set explicitly must fit.
    return replace(limits, max_pending_bytes=max(limits.max_pending_bytes, data.get("max_body_bytes", 1)))


def default_text(field: FieldInfo) -> str:
    """The default value of a setting, or the rule that it follows from."""
    if field.default_factory is not None and isinstance(field.json_schema_extra, dict):
        return str(field.json_schema_extra["default"])
    return "none" if field.default in (None, ()) else str(field.default)


def env_name(name: str) -> str:
    """The environment variable of a setting: `port` -> `OOD_PORT`."""
    return ENV_PREFIX + name.upper()


def flag_name(name: str) -> str:
    """The command-line flag of a setting: `max_batch` -> `--max-batch`."""
    return "--" + name.replace("_", "-")


def load_settings(flags: Mapping[str, Any] | None = None, file: Path | None = None) -> Settings:
    """Load the settings. Flags override the environment, which overrides the settings file.

    Args:
        flags: The settings of the command line, not validated.
        file: A YAML file, or TOML by its suffix. None: the file that `OOD_SETTINGS` names, if it is set.

    Raises:
        SettingsError: The file cannot be read, or a setting is wrong.
    """
    if file is None and os.environ.get(SETTINGS_FILE_ENV):
        file = Path(os.environ[SETTINGS_FILE_ENV])
    values = {} if file is None else _read(file)
    values |= EnvSettingsSource(Settings)()
    values |= flags or {}
    try:
        return Settings(**values)
    except ValidationError as error:
        raise SettingsError(_explain(error)) from error


def unknown_variables(environ: Mapping[str, str]) -> dict[str, str | None]:
    """The variables of `environ` with the settings' prefix that are no settings, each with the closest setting.

    Service links of Kubernetes and the variables of this project's own commands are left out.
    """
    settings = [env_name(name) for name in Settings.model_fields]
    known = {*settings, *_OTHER_VARIABLES}
    unknown = [
        name
        for name, value in environ.items()
        if name.startswith(ENV_PREFIX) and name not in known and not _is_service_link(name, value)
    ]
    return {name: next(iter(get_close_matches(name, settings, 1)), None) for name in sorted(unknown)}


def _as_browsers_write(origin: str) -> str:
    """The origin in lower case, without the default port of its scheme (RFC 6454)."""
    origin = origin.lower()
    return origin.removesuffix(":443" if origin.startswith("https:") else ":80")


def _is_service_link(name: str, value: object) -> bool:
    """Whether Kubernetes set a variable, for a Service whose name begins with `ood`."""
    return bool(_LINK_NAME.fullmatch(name)) or (isinstance(value, str) and bool(_LINK_ADDRESS.match(value)))


def _read(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text(encoding="utf-8")
        content = tomllib.loads(text) if file.suffix == ".toml" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        # ValueError: a TOML syntax error, bytes that are not UTF-8, or a YAML timestamp like 2024-13-45.
        raise SettingsError(f"Settings file {file} cannot be read: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise SettingsError(f"Settings file {file} must be a mapping of settings, for example `port: 8000`.")
    for key in content:
        if key not in Settings.model_fields:
            matches = get_close_matches(str(key), list(Settings.model_fields), 1)
            hint = f"Did you mean {matches[0]!r}?" if matches else "`--help` lists every setting."
            raise SettingsError(f"Settings file {file}: there is no setting {key!r}. {hint}")
    return content


def _explain(error: ValidationError) -> str:
    lines = []
    for detail in error.errors():
        message = detail["msg"].removeprefix("Value error, ")
        name = ".".join(str(part) for part in detail["loc"])
        if isinstance(detail["input"], str) and _LINK_ADDRESS.match(detail["input"]):
            message = (
                "this is the address of a Kubernetes Service, which a service link sets in every pod of its namespace. "
                "Set enableServiceLinks: false in the pod's spec, or give the Service a name that does not begin with "
                f"{ENV_PREFIX.rstrip('_').lower()}."
            )
        lines.append(f"{env_name(name)} = {detail['input']!r}: {message}" if name else message)
    return "\n".join(lines)
