"""A running nginx with the shipped configuration, rendered as its container image does."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import httpx

from tests.support.waiting import until
from tests.system.support.programs import free_port, require_program
from tests.system.support.service_process import ROOT, TIMEOUT_SECONDS

DEPLOY = ROOT / "deploy"
TEMPLATES = DEPLOY / "gateway" / "templates"
TLS_TEMPLATES = DEPLOY / "gateway" / "tls"
KEY_TEMPLATES = DEPLOY / "gateway" / "keys"

# The image's nginx.conf, with folders of the test.
_MAIN = """
worker_processes 2;
pid nginx.pid;
error_log /dev/stderr warn;
events { worker_connections 512; }
http {
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    include conf.d/*.conf;
}
"""


def env_file(path: Path) -> dict[str, str]:
    """The variables in a file for `docker compose`'s `env_file`."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


class Gateway:
    """A running nginx.

    Attributes:
        port: Its port.
        client: A client of it.
    """

    def __init__(
        self,
        folder: Path,
        ports: list[int],
        *,
        tls: bool = False,
        keys: bool = False,
        directives: str = "",
        **variables: str,
    ) -> None:
        """Start nginx in front of replicas.

        Args:
            folder: An empty folder for its files.
            ports: The ports of the replicas.
            tls: Whether the template for TLS is mounted.
            keys: Whether the template for API keys is mounted.
            directives: Further directives of the server.
            variables: Variables that replace those of the shipped env files and of the tests.
        """
        self.port = free_port()
        self._folder = folder
        servers = " ".join(f"server 127.0.0.1:{port} max_fails=1 fail_timeout=1s;" for port in ports)
        self._variables = {
            **env_file(DEPLOY / "limits.env"),
            **env_file(DEPLOY / "gateway" / "gateway.env"),
            "GATEWAY_PORT": f"127.0.0.1:{self.port}",
            "GATEWAY_SERVERS": servers,
            "GATEWAY_RATE": "100000",
            "GATEWAY_BURST": "100000",
            "NGINX_LOCAL_RESOLVERS": "127.0.0.1",
            # The default deadline could pass on a busy machine.
            "OOD_TIMEOUT_MS": str(1000 * TIMEOUT_SECONDS),
            **variables,
        }
        (folder / "conf.d").mkdir(parents=True)
        (folder / "conf.d" / "test.listen").write_text(directives, encoding="utf-8")
        (folder / "nginx.conf").write_text(_MAIN, encoding="utf-8")
        for templates in (TEMPLATES, *([TLS_TEMPLATES] if tls else ()), *([KEY_TEMPLATES] if keys else ())):
            for template in templates.glob("*.template"):
                self._render(template)
        command = [require_program("nginx"), "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr"]
        check = subprocess.run([*command, "-t"], capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
        assert check.returncode == 0, check.stderr
        self._access_log, self._error_log = (folder / "access.log").open("w"), (folder / "errors.log").open("w")
        self._process = subprocess.Popen(
            [*command, "-g", "daemon off;"], stdout=self._access_log, stderr=self._error_log, cwd=folder
        )
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=TIMEOUT_SECONDS)
        until(self._is_listening)

    def _render(self, template: Path) -> None:
        """Render a template as the image does: only defined variables are replaced, and the suffix is dropped."""
        names = " ".join(f"${{{name}}}" for name in self._variables)
        with template.open() as source, (self._folder / "conf.d" / template.stem).open("w") as target:
            subprocess.run(
                ["envsubst", names],
                env=self._variables | {"PATH": os.environ["PATH"]},
                stdin=source,
                stdout=target,
                timeout=TIMEOUT_SECONDS,
                check=True,
            )

    def _is_listening(self) -> bool:
        try:
            self.client.get("/healthz")
        except httpx.TransportError:
            assert self._process.poll() is None, (self._folder / "errors.log").read_text()
            return False
        return True

    @property
    def log_entries(self) -> list[dict[str, Any]]:
        """The entries of the access log so far."""
        *lines, _ = (self._folder / "access.log").read_text().split("\n")
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        """End nginx and its workers."""
        self.client.close()
        self._process.terminate()
        self._process.wait(TIMEOUT_SECONDS)
        self._access_log.close()
        self._error_log.close()
