"""The servers of the benchmarks: no process outlives its server, and a failed start is reported with its output."""

import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from benchmarks.processes import NotReady, cpu_seconds, main_thread_seconds, running

# The daemon is in a session of its own, ignores SIGTERM, and its parent has ended.
SERVER_WITH_A_DAEMON = """
import os, pathlib, signal, sys, time
pid_file = pathlib.Path(sys.argv[1])
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        pid_file.with_suffix(".part").write_text(str(os.getpid()))
        pid_file.with_suffix(".part").rename(pid_file)
        time.sleep(60)
    os._exit(0)
os.wait()
time.sleep(60)
"""


# The child creates the file after it has used 0.2 s of processor time.
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


def exists(file: Path) -> Callable[[], bool]:
    return file.exists


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process adopt orphans")
def test_a_daemon_started_by_a_server_is_ended_with_it(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    with running(server(SERVER_WITH_A_DAEMON, str(pid_file)), {}, exists(pid_file), stop_timeout=0.2) as process:
        daemon = psutil.Process(int(pid_file.read_text()))
        assert daemon.is_running()
    assert not daemon.is_running()
    assert not process.is_running()


def test_a_server_that_ends_at_once_is_reported_with_its_output(tmp_path: Path) -> None:
    with (
        pytest.raises(NotReady, match="the port is taken"),
        running(server("print('the port is taken')"), {}, exists(tmp_path / "never")),
    ):
        pass


def test_the_processor_time_of_a_servers_children_is_counted(tmp_path: Path) -> None:
    busy = tmp_path / "busy"
    with running(server(SERVER_WITH_A_BUSY_CHILD, str(busy)), {}, exists(busy), stop_timeout=0.2) as process:
        # Linux counts in hundredths of a second, and can lose the last one.
        assert 0.18 <= cpu_seconds(process) < 10
        assert main_thread_seconds(process) < cpu_seconds(process) - 0.15
