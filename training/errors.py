"""The errors of the training package. Each names its subject, the reason and the remedy."""


class TrainingError(Exception):
    """Base class of all training errors, with a message for the user.

    Args:
        subject: The file, key or option that is wrong.
        reason: What is wrong with it, without a full stop.
        remedy: What to do about it.
    """

    def __init__(self, subject: str, reason: str, remedy: str) -> None:
        # The base class gets all three, because pickling passes its arguments: errors of data workers are pickled.
        super().__init__(subject, reason, remedy)
        self.subject = subject
        self.reason = reason
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.subject}: {self.reason}. {self.remedy}"


class RecipeError(TrainingError):
    """A recipe key is missing or unknown, or its value is invalid."""


class DataError(TrainingError):
    """A data set cannot be read or is unsuitable for training."""


class OverlapError(DataError):
    """Outliers duplicate in-distribution examples."""


class RunError(TrainingError):
    """A run directory is in a state that the command does not support."""


class DivergedError(TrainingError):
    """The loss is no longer finite."""


class ParityError(TrainingError):
    """The exported ONNX graph and the model give different scores."""


class PrecisionError(TrainingError):
    """A graph in lower precision detects less than the float32 graph."""


class GraphError(TrainingError):
    """An ONNX graph cannot be wrapped or converted."""


class BackboneError(TrainingError):
    """A pretrained backbone cannot be found, downloaded or loaded."""


class HubUnreachable(BackboneError):
    """The hub does not answer, or the environment forbids to ask it, and the model is not in its local cache."""
