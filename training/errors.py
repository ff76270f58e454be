"""Every way a training run can go wrong: typed, naming the input, the reason and the remedy."""


class TrainingError(Exception):
    """Base of all training errors; its text is written for the person who started the run."""

    def __init__(self, subject: str, reason: str, remedy: str) -> None:
        # All three to the base class: what a data worker raises is pickled on its way to the training process.
        super().__init__(subject, reason, remedy)
        self.subject = subject
        self.reason = reason
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.subject}: {self.reason}. {self.remedy}"


class RecipeError(TrainingError):
    """A recipe key is missing, unknown or has a value that makes no sense."""


class DataError(TrainingError):
    """A data set cannot be read, or what it holds cannot be trained on."""


class OverlapError(DataError):
    """Outliers contain images that are also in the in-distribution data."""


class RunError(TrainingError):
    """A run directory is not in the state that the command needs."""


class DivergedError(TrainingError):
    """The loss stopped being a finite number."""


class ParityError(TrainingError):
    """The exported ONNX graph does not score real inputs as the model it was made of."""


class PrecisionError(TrainingError):
    """A graph in lower precision does not detect what the full one does."""


class GraphError(TrainingError):
    """An ONNX graph cannot be wrapped as it is."""
