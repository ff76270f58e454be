"""Pages for browsers: their headers, and the files that they load."""

from importlib.resources import files
from pathlib import Path

from starlette.responses import FileResponse, HTMLResponse, Response

from service.http.route import Access, Route

_OWN_FILES = ("console.css", "console.js", "docs.js")
_SWAGGER_FILES = ("swagger-ui.css", "swagger-ui-bundle.js")

_HEADERS = {
    # Scripts come from this service only, and none is inline. Swagger UI sets styles inline.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
}


def page(content: str) -> Response:
    """The response with a page, which can load the files of `asset_route` only."""
    return HTMLResponse(content, headers=_HEADERS)


def page_source(name: str) -> str:
    """The text of a file in `service/routes/pages`."""
    return files("service.routes").joinpath("pages", name).read_text(encoding="utf-8")


def asset_routes() -> list[Route]:
    """`GET /assets/...`: the scripts and styles of the pages. They need no key, because they hold no data."""
    own, swagger = Path(str(files("service.routes"))) / "pages", Path(str(files("fastapi_offline"))) / "static"
    paths = [folder / name for folder, names in ((own, _OWN_FILES), (swagger, _SWAGGER_FILES)) for name in names]
    return [_asset_route(path) for path in paths]


def _asset_route(path: Path) -> Route:
    async def asset() -> Response:
        return FileResponse(path, headers={"Cache-Control": "max-age=3600"})

    return Route(f"/assets/{path.name}", asset, access=Access.OPEN, quiet=True, include_in_schema=False)
