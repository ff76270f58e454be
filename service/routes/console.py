"""`GET /`: a plain page with the models, and links to the documentation and the metrics."""

import json
from collections.abc import Sequence
from html import escape
from string import Template

from starlette.requests import Request
from starlette.responses import Response

from bundle import ImageInput
from service.http.route import Route
from service.lifecycle import Lifecycle
from service.protocols.native.curl import curl_json
from service.repository.model import Model
from service.repository.served import Repository
from service.routes.page import page, page_source

_MODEL = Template("""<article>
<h2><a href="/v1/models/$name">$name</a> <small>version $version</small></h2>
<p>$description</p>
<dl><div><dt>versions</dt><dd>$versions</dd></div><div><dt>takes</dt><dd>$takes</dd></div><div><dt>scores</dt><dd>$scores</dd></div>
<div><dt>default</dt><dd>$default</dd></div><div><dt>alpha</dt><dd>$alpha</dd></div>
<div><dt>calibrated on</dt><dd>$n inputs</dd></div><div><dt>runs on</dt><dd>$provider</dd></div></dl>
<details><summary>Try it</summary><pre>$curl</pre>
<div class="try" data-url="v1/models/$name/score" data-example="$example" data-crops="$crops">$field
<button class="score">Score</button>$explain<div class="explanation"></div><pre></pre></div></details>
</article>""")
_FILE_FIELD = '<label>A picture; without one, an example is scored <input type="file" accept="image/*"></label>'
_TEXT_FIELD = Template("<label>A text <textarea>$text</textarea></label>")
_EXPLAIN_BUTTON = '<button class="explain">Score and explain</button>'


def routes(repository: Repository, lifecycle: Lifecycle, *, keys_needed: bool = False) -> list[Route]:
    """The route of the page; `keys_needed` adds an API key to its example commands."""
    template = Template(page_source("console.html"))

    async def index(request: Request) -> Response:
        """The page, with a command for each model that works unchanged."""
        address = str(request.base_url).rstrip("/")
        models = (
            "\n".join(
                _article(
                    repository.get(name),
                    repository.versions(name),
                    curl_json(repository.get(name), address, keys_needed=keys_needed),
                )
                for name in repository.names
            )
            or "<p>No model is loaded yet.</p>"
        )
        refused = "".join(
            f"<li><code>{escape(bundle.path)}</code> {escape(bundle.reason)}</li>" for bundle in repository.refused
        )
        return page(
            template.substitute(
                models=models,
                refused=f'<section class="refused"><h2>Refused bundles</h2><ul>{refused}</ul></section>'
                if refused
                else "",
                phase=escape(lifecycle.phase),
            )
        )

    return [Route("/", index, include_in_schema=False)]


def _article(model: Model, versions: Sequence[str], curl: str) -> str:
    manifest, example = model.bundle.manifest, model.modality.example()
    values = {
        "name": model.name,
        "version": model.version,
        "versions": ", ".join(versions),
        "description": manifest.description,
        "takes": model.modality.description,
        "scores": ", ".join(model.option_limits.scores),
        "default": model.option_limits.default_score,
        "alpha": f"{model.scorer.alpha:g}",
        "n": f"{manifest.calibration.n:,}",
        "curl": curl,
        "example": json.dumps(example),
        # A heat map then covers a part of the picture.
        "crops": json.dumps(isinstance(manifest.input, ImageInput) and manifest.input.resize_to is not None),
        "provider": model.provider.removesuffix("ExecutionProvider"),
    }
    text = example.get("text")
    markup = {
        "field": _FILE_FIELD if text is None else _TEXT_FIELD.substitute(text=escape(text)),
        "explain": _EXPLAIN_BUTTON if model.option_limits.explanations else "",
    }
    return _MODEL.substitute({key: escape(value) for key, value in values.items()} | markup)
