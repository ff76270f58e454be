"""The errors of bundles, calibrations, images and texts; their messages name the input, the reason and the remedy."""

from pathlib import Path
from typing import ClassVar


class BundleError(Exception):
    """A bundle that cannot be used.

    Attributes:
        path: the bundle's folder.
        where: the faulty file in it, or the faulty field of the manifest (`calibration.alpha`).
        reason: the fault.
        remedy: how to correct it.
    """

    def __init__(self, path: Path, where: str, reason: str, remedy: str) -> None:
        super().__init__(path, where, reason, remedy)
        self.path = path
        self.where = where
        self.reason = reason
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.path}: {self.where}: {self.reason}. {self.remedy}."


class ManifestMissing(BundleError):
    """The folder has no manifest: it is no bundle, or its export was interrupted."""


class ManifestInvalid(BundleError):
    """The manifest is not JSON, or one of its fields is missing, unknown or wrong."""


class SchemaTooNew(BundleError):
    """The manifest has a later schema than this version reads."""


class FileMissing(BundleError):
    """A file that the manifest lists is absent or cannot be read."""


class FileCorrupt(BundleError):
    """A file's SHA-256 is not the one in the manifest."""


class PathEscapes(BundleError):
    """A path, or a symbolic link on it, leads out of the bundle."""


class CalibrationInvalid(BundleError):
    """The calibration file is unreadable, or does not match the manifest's scores."""


class TokenizerInvalid(BundleError):
    """The tokenizer file is unreadable, or cannot encode every text."""


class ReferencesInvalid(BundleError):
    """The file with the training examples is unreadable."""


class CalibrationError(ValueError):
    """Calibration scores, or an alpha, for which there is no p-value or threshold."""


class UnknownScore(ValueError):
    """A score name that is not in the score table."""


class ImageError(ValueError):
    """Bytes that are not one decodable image.

    Attributes:
        type: the problem's slug, stable for clients (`undecodable-image`).
        detail: a sentence for the sender of the bytes: the fault and the remedy.
    """

    type: ClassVar[str] = "invalid-image"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class UndecodableImage(ImageError):
    """The bytes are not an image of an accepted format, or are truncated or corrupt."""

    type = "undecodable-image"


class EmptyImage(ImageError):
    """There are no bytes."""

    type = "empty-input"


class ImageTooLarge(ImageError):
    """The headers declare more pixels, or more work to decode them, than the limit; nothing was decoded."""

    type = "image-too-large"


class EmptyText(ValueError):
    """A text without tokens.

    Attributes:
        type: the problem's slug, stable for clients.
        detail: a sentence for the sender of the text: the fault and the remedy.
    """

    type: ClassVar[str] = "empty-input"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail
