"""The check that uvicorn has every method that the service overrides."""

import pytest
import uvicorn
from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.http.connection import Connection
from service.http.uvicorn_hooks import require_hooks
from service.server.server import Server


class Base:
    def kept(self) -> None: ...


class WithHook(Base):
    @override
    def kept(self) -> None: ...

    def unmarked(self) -> None: ...


class WithMissingHook(Base):
    @override
    def kept(self) -> None: ...

    @override
    def _renamed(self) -> None: ...


def test_existing_hooks_are_accepted() -> None:
    require_hooks(WithHook, Base)


def test_a_missing_hook_is_refused_by_name_with_the_installed_version() -> None:
    with pytest.raises(ImportError) as error:
        require_hooks(WithMissingHook, Base)
    assert f"uvicorn {uvicorn.__version__} has no Base._renamed, which the service overrides" in str(error.value)


@pytest.mark.parametrize(("subclass", "base"), [(Connection, HttpToolsProtocol), (Server, uvicorn.Server)])
def test_every_method_that_overrides_one_of_uvicorn_is_checked(subclass: type, base: type) -> None:
    overriding = {name for name, value in vars(subclass).items() if callable(value) and hasattr(base, name)}
    marked = {name for name, value in vars(subclass).items() if getattr(value, "__override__", False)}
    assert overriding - {"__init__"} == marked


def test_a_uvicorn_without_a_private_hook_is_refused_at_import(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(HttpToolsProtocol, "_start_asgi_task")
    with pytest.raises(ImportError, match=r"HttpToolsProtocol\._start_asgi_task"):
        require_hooks(Connection, HttpToolsProtocol)
