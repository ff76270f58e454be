"""The access log compared with the responses that clients received."""

from collections import Counter

from tests.system.support.scoring_clients import SCORE_PATH, ScoringClients
from tests.system.support.service_process import ServiceProcess


def assert_every_accepted_request_was_answered(service: ServiceProcess, clients: ScoringClients) -> None:
    """Compare the statuses in the JSON access log of an ended service with those that its only clients received.

    A client may fail to send a request once the service has closed its connection: such a request was not accepted,
    and is not in the log. How many clients fail depends on the speed of the machine.
    """
    logged = Counter(entry["status"] for entry in service.log_entries("request") if entry["path"] == SCORE_PATH)
    received = Counter({outcome: count for outcome, count in clients.outcomes.items() if isinstance(outcome, int)})
    assert logged == received
    assert received.keys() <= {200, 503}
