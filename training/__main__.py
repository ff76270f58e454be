"""Entry point of `python -m training` and of the script `ood-train`."""

from training.commands.app import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
