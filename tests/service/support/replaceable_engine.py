"""An engine whose computation a test can replace while the service runs."""

from collections.abc import Mapping, Sequence

from service.inference.engine import Engine
from service.inputs.modality import Array, Run


class ReplaceableEngine(Engine):
    """Computes batches by `replacement`, if a test sets one."""

    replacement: Run | None = None

    def run(self, items: Sequence[Array], *, exclusive: bool = True) -> Mapping[str, Array]:
        if self.replacement is not None:
            return self.replacement(items, exclusive=exclusive)
        return self.run_unreplaced(items, exclusive=exclusive)

    def run_unreplaced(self, items: Sequence[Array], *, exclusive: bool = True) -> Mapping[str, Array]:
        return super().run(items, exclusive=exclusive)
