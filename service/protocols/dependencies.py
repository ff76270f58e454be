"""The parts of the application that protocols use."""

from dataclasses import dataclass

from service.auth.api_keys import KeyFile
from service.http.load_shedding import LoadShedder
from service.lifecycle import Lifecycle
from service.pipeline import Pipeline
from service.repository.reloader import Reloader
from service.repository.served import Repository
from service.settings import Settings


@dataclass(frozen=True, slots=True)
class Dependencies:
    """The arguments of each protocol's `routes`: the parts that its requests pass through.

    `admin_keys` is None if the service has no admin calls; `version` is the version of the service.
    """

    repository: Repository
    reloader: Reloader
    lifecycle: Lifecycle
    pipeline: Pipeline
    load_shedder: LoadShedder
    settings: Settings
    admin_keys: KeyFile | None
    version: str
