"""`python -m service`, also installed as `ood-serve`."""

import os
import sys
from collections.abc import Sequence

import prometheus_client
import structlog

from service import new_key, offline
from service.app import create_app
from service.arguments import parse_arguments
from service.keys import KeysError
from service.logs import configure_logs
from service.server import serve
from service.settings import SettingsError, load_settings, unknown_variables


def main(argv: Sequence[str] | None = None) -> int:
    """Serve, or run the command `new-key` or `score-dataset`.

    The exit code: 0 after a signal, 1 where the models cannot be served, 2 for wrong settings.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    if arguments[:1] == ["new-key"]:
        return new_key.main(arguments[1:])
    if arguments[:1] == ["score-dataset"]:
        return offline.main(arguments[1:])
    flags, file = parse_arguments(arguments)
    try:
        settings = load_settings(flags, file)
    except SettingsError as error:
        print(f"ood-serve: {error}", file=sys.stderr)
        return 2
    handler = configure_logs(settings)
    log = structlog.stdlib.get_logger(__name__)
    for name, near in unknown_variables(os.environ).items():
        log.warning("unknown setting in the environment is ignored", variable=name, did_you_mean=near)
    # A second series per counter, with its creation time, doubles the page and says nothing here.
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # the library's gap
    try:
        app = create_app(settings)
    except KeysError as error:
        print(f"ood-serve: {error}", file=sys.stderr)
        return 2
    handler.on_loss = app.state.metrics.lost_log_lines.inc
    return serve(app, settings)


if __name__ == "__main__":
    sys.exit(main())
