from pathlib import Path

import pytest

from bundle import false_flag_rate
from service.server.banner import banner
from tests.service.conftest import Serve


@pytest.mark.parametrize(
    ("alpha", "shown"),
    [
        (None, f"alpha 0.05 (false flags {false_flag_rate(500, 0.05).interval} for 95% of calibration sets)"),
        (0.25, f"alpha 0.25 (false flags {false_flag_rate(500, 0.25).interval} for 95% of calibration sets)"),
        (0.001, "alpha 0.001 (flags nothing)"),
    ],
)
def test_the_banner_states_the_false_flag_rate_at_the_alpha_in_force(
    repository: Path, serve: Serve, alpha: float | None, shown: str
) -> None:
    with serve(repository, alpha=alpha) as live:
        text = banner(live.app.state.repository, "http://127.0.0.1:8000", "1")
    (line,) = (line for line in text.splitlines() if "tiny version 2" in line)
    assert line.endswith(shown)
