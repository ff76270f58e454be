"""The parts of the application that protocols use."""

from dataclasses import dataclass

from service.http.load_shedding import LoadShedder
from service.lifecycle import Lifecycle
from service.pipeline import Pipeline
from service.repository.served import Repository
from service.settings import Settings


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What the application hands to `routes` of each protocol; `version` is the service's own."""

    repository: Repository
    lifecycle: Lifecycle
    pipeline: Pipeline
    load_shedder: LoadShedder
    settings: Settings
    version: str
