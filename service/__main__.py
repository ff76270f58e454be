"""The command `python -m service`, also installed as `ood-serve`."""

import os
import sys
from collections.abc import Sequence

import structlog

from service.cli import parse_arguments
from service.memory_limit import available_memory
from service.settings import SettingsError, load_settings, unknown_variables
from service.telemetry.logs import configure_logs


def main(argv: Sequence[str] | None = None) -> int:
    """Serve, or run the command `new-key` or `score-dataset`.

    Returns:
        The exit code of a server: 0 after a signal, 1 if the models cannot be served, 2 for wrong settings.
    """
    # Each branch imports only what it needs: a supervisor needs little memory, and starts its first worker early.
    arguments = sys.argv[1:] if argv is None else list(argv)
    if arguments[:1] == ["new-key"]:
        from service.auth import new_key  # noqa: PLC0415

        return new_key.main(arguments[1:])
    if arguments[:1] == ["score-dataset"]:
        from service import offline  # noqa: PLC0415

        return offline.main(arguments[1:])
    flags, file = parse_arguments(arguments)
    try:
        settings = load_settings(flags, file)
    except SettingsError as error:
        print(f"ood-serve: {error}", file=sys.stderr)
        return 2
    handler = configure_logs(settings)
    log = structlog.stdlib.get_logger(__name__)
    memory, source = available_memory()
    log.info(
        "limits",
        memory_mib=memory // 2**20,
        source=source,
        workers=settings.workers,
        decode_threads=settings.decode_threads,
        max_pixels=settings.max_pixels,
        max_pending_mib=settings.max_pending_bytes // 2**20,
    )
    for name, suggestion in unknown_variables(os.environ).items():
        log.warning("unknown setting ignored", variable=name, did_you_mean=suggestion)
    if settings.workers > 1 or settings.engine_process == "on":
        from service.server.supervisor import supervise  # noqa: PLC0415

        return supervise(settings)
    from service.server.worker import work  # noqa: PLC0415

    return work(settings, handler)


if __name__ == "__main__":
    sys.exit(main())
