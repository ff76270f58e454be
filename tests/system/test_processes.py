"""The benchmarks' servers: none of their processes outlives them, and one that fails tells why."""

import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from benchmarks.processes import NotReady, cpu_seconds, main_thread_seconds, running

# A daemon: a child in a session of its own that ignores SIGTERM and whose parent is gone.
SERVER_WITH_A_DAEMON = """
import os, pathlib, signal, sys, time
note = pathlib.Path(sys.argv[1])
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        note.with_suffix(".part").write_text(str(os.getpid()))
        note.with_suffix(".part").rename(note)
        time.sleep(60)
    os._exit(0)
os.wait()
time.sleep(60)
"""


# What is there when a child has computed for a fifth of a second.
SERVER_WITH_A_BUSY_CHILD = """
import os, pathlib, sys, time
if os.fork() == 0:
    while time.process_time() < 0.2:
        pass
    pathlib.Path(sys.argv[1]).touch()
time.sleep(60)
"""


def server(program: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", program, *arguments]


def there(file: Path) -> Callable[[], bool]:
    return file.exists


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process adopt orphans")
def test_a_daemon_that_a_server_left_behind_is_ended_with_it(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    with running(server(SERVER_WITH_A_DAEMON, str(note)), {}, there(note), grace=0.2) as process:
        daemon = psutil.Process(int(note.read_text()))
        assert daemon.is_running()
    assert not daemon.is_running()
    assert not process.is_running()


def test_a_server_that_ends_at_once_is_reported_with_what_it_printed(tmp_path: Path) -> None:
    with (
        pytest.raises(NotReady, match="the port is taken"),
        running(server("print('the port is taken')"), {}, there(tmp_path / "never")),
    ):
        pass


def test_what_a_servers_children_compute_is_counted(tmp_path: Path) -> None:
    done = tmp_path / "done"
    with running(server(SERVER_WITH_A_BUSY_CHILD, str(done)), {}, there(done), grace=0.2) as process:
        # Linux counts in hundredths of a second, and may have lost the last one.
        assert 0.18 <= cpu_seconds(process) < 10
        assert main_thread_seconds(process) < cpu_seconds(process) - 0.15
