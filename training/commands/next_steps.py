"""Next steps: how to serve a bundle that was just written, as commands that can be pasted."""

import shlex
from pathlib import Path

from training.console import console

_TYPES = {"sample.png": "image/png", "sample.txt": "text/plain"}


def next_steps(bundle: Path, models: Path) -> None:
    """Print where `bundle` is, the command that serves the repository `models`, and a first request of its sample."""
    lines = [f"bundle: {bundle}", f"serve it with: python -m service --models {shlex.quote(str(models))}"]
    for name, kind in _TYPES.items():
        if (sample := bundle / name).exists():
            lines.append(
                f"then: curl --data-binary @{shlex.quote(str(sample))} -H 'Content-Type: {kind}' "
                f"'http://127.0.0.1:8000/v1/models/{bundle.parent.name}/score'"
            )
    # Wrapped at the terminal's width, a command could not be pasted.
    console.print("\n".join(lines), soft_wrap=True, highlight=False, markup=False)
