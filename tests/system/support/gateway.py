"""A real nginx with the shipped configuration, rendered as its image would."""

import os
import signal
import subprocess
import time
from pathlib import Path

import httpx

from tests.system.conftest import ROOT
from tests.system.support.programs import free_port, require_program

DEPLOY = ROOT / "deploy"
TEMPLATES = DEPLOY / "gateway" / "templates"
TLS_TEMPLATES = DEPLOY / "gateway" / "tls"
KEY_TEMPLATES = DEPLOY / "gateway" / "keys"

# What the image's own nginx.conf says, with this test's folders.
_MAIN = """
worker_processes 2;
pid nginx.pid;
error_log /dev/stderr warn;
events {{ worker_connections 512; }}
http {{
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    include conf.d/*.conf;
}}
"""


def env_file(path: Path) -> dict[str, str]:
    """The variables of a file for `docker compose`'s `env_file`."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


class Gateway:
    """A running nginx in front of `ports`; `variables` replace those of the shipped env files."""

    def __init__(
        self, folder: Path, ports: list[int], *, tls: bool = False, keys: bool = False, **variables: str
    ) -> None:
        self.folder = folder
        self.port = free_port()
        servers = " ".join(f"server 127.0.0.1:{port} max_fails=1 fail_timeout=1s;" for port in ports)
        self.variables = {
            **env_file(DEPLOY / "limits.env"),
            **env_file(DEPLOY / "gateway" / "gateway.env"),
            "GATEWAY_PORT": f"127.0.0.1:{self.port}",
            "GATEWAY_SERVERS": servers,
            "GATEWAY_RATE": "100000",
            "GATEWAY_BURST": "100000",
            "NGINX_LOCAL_RESOLVERS": "127.0.0.1",
            **variables,
        }
        (folder / "conf.d").mkdir(parents=True)
        (folder / "nginx.conf").write_text(_MAIN.format(), encoding="utf-8")
        for templates in (TEMPLATES, *([TLS_TEMPLATES] if tls else ()), *([KEY_TEMPLATES] if keys else ())):
            for template in templates.glob("*.template"):
                self._render(template)
        self.checked = subprocess.run([*self._command, "-t"], capture_output=True, text=True, timeout=30, check=False)
        assert self.checked.returncode == 0, self.checked.stderr
        self._access, self._errors = (folder / "access.log").open("w"), (folder / "errors.log").open("w")
        self.process = subprocess.Popen(
            [*self._command, "-g", "daemon off;"], stdout=self._access, stderr=self._errors, cwd=folder
        )
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30)
        self._wait()

    @property
    def _command(self) -> list[str]:
        return [require_program("nginx"), "-p", str(self.folder), "-c", str(self.folder / "nginx.conf"), "-e", "stderr"]

    def _render(self, template: Path) -> None:
        """As the image does: only variables that are there are replaced, and `.template` is dropped from the name."""
        names = " ".join(f"${{{name}}}" for name in self.variables)
        with template.open() as source, (self.folder / "conf.d" / template.stem).open("w") as target:
            subprocess.run(["envsubst", names], env=self.variables | {"PATH": os.environ["PATH"]}, stdin=source,
                           stdout=target, timeout=30, check=True)  # fmt: skip

    def _wait(self) -> None:
        for _ in range(200):
            try:
                self.client.get("/healthz")
            except httpx.TransportError:
                assert self.process.poll() is None, (self.folder / "errors.log").read_text()
                time.sleep(0.05)
            else:
                return
        raise AssertionError("nginx does not listen")

    @property
    def log(self) -> str:
        """The access log so far."""
        return (self.folder / "access.log").read_text()

    def close(self) -> None:
        """End nginx and its workers."""
        self.client.close()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=30)
        self._access.close()
        self._errors.close()
