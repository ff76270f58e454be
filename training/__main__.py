"""Entry point of `python -m training` and of the script `ood-train`."""

import sys

_EXTRA = "Install the extra: pip install '.[training]'"


def main() -> None:
    """Run the command line; without the packages of the extra `training`, name the extra."""
    try:
        # Imported here, so that a missing package is not a traceback.
        from training.commands.app import main as run  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] in ("bundle", "datafiles", "training"):
            raise
        print(f"training: {error.name} is missing. {_EXTRA}", file=sys.stderr)
        sys.exit(1)
    run()


if __name__ == "__main__":
    main()
