"""The pages in a real browser: they render and score under their policy, without any request to another host."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.tiny_bundle import make_tiny_bundle
from tests.support.tiny_density_bundle import make_tiny_density_bundle
from tests.support.tiny_text_bundle import make_tiny_text_bundle
from tests.system.support.browser import Browser
from tests.system.support.service_process import ServiceProcess


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    root = tmp_path_factory.mktemp("models")
    make_tiny_bundle(root)
    make_tiny_text_bundle(root)
    make_tiny_bundle(root, name="explained", evidence=True, neighbours=True)
    make_tiny_text_bundle(root, name="words", task="language-model")
    make_tiny_density_bundle(root)
    service = ServiceProcess(root)
    yield service
    service.close()


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    with Browser(tmp_path / "profile") as browser:
        yield browser


def test_pages_work_in_a_browser_under_their_policy(service: ServiceProcess, browser: Browser) -> None:
    # The console: its style is applied, and its buttons score the examples.
    browser.open(f"{service.address}/")
    browser.until("document.querySelectorAll('article button.score').length === 5")
    browser.until("getComputedStyle(document.querySelector('dl')).display === 'grid'")
    for index in range(5):
        browser.evaluate(f"document.querySelectorAll('article button.score')[{index}].click()")
        output = f"document.querySelectorAll('.try pre')[{index}].textContent"
        browser.until(f"{output}.includes('results')")
        content = json.loads(browser.evaluate(output))
        assert (content["errors"], len(content["results"])) == (0, 1)

    # The documentation: it shows every route, and "Try it out" scores the example.
    browser.open(f"{service.address}/docs")
    browser.until("document.querySelectorAll('.opblock').length > 10")
    score = "[...document.querySelectorAll('.opblock-post')].find(block => block.textContent.includes('{model}/score'))"
    browser.evaluate(f"{score}.querySelector('.opblock-summary-control').click()")
    browser.until(f"{score}.querySelector('.try-out__btn')")
    browser.evaluate(f"{score}.querySelector('.try-out__btn').click()")
    browser.until(f"{score}.querySelector('.execute')")
    browser.evaluate(f"{score}.querySelector('.execute').click()")
    browser.until(f"{score}.querySelector('.live-responses-table tbody .response-col_status')")
    status = browser.evaluate(f"{score}.querySelector('.live-responses-table tbody .response-col_status').textContent")
    assert status.strip().startswith("200"), status

    others = {url for url in browser.requested if not url.startswith((f"{service.address}/", "data:", "about:"))}
    assert others == set()
    assert browser.complaints == []


def explain(browser: Browser, model: str) -> str:
    """Explain the input of a model in the console, and return the JavaScript expression of the explanation."""
    form = f"document.querySelector('.try[data-url*=\"/{model}/\"]')"
    browser.until(f"{form} && document.readyState === 'complete'")
    browser.evaluate(f"{form}.closest('details').open = true")
    browser.evaluate(f"{form}.querySelector('button.explain').click()")
    browser.until(f"{form}.querySelector('.explanation').childElementCount > 0")
    return f"{form}.querySelector('.explanation')"


def test_the_console_shows_explanations_under_the_policy_of_its_page(service: ServiceProcess, browser: Browser) -> None:
    browser.open(f"{service.address}/")
    evidence = explain(browser, "explained")
    browser.until(
        f"[...{evidence}.querySelectorAll('.overlay img')].filter(image => image.naturalWidth > 0).length === 2"
    )
    assert "speak for" in browser.evaluate(f"{evidence}.querySelector('figcaption').textContent")
    neighbours = browser.evaluate(f"[...{evidence}.querySelectorAll('.neighbours li')].map(item => item.textContent)")
    assert len(neighbours) == 3
    assert "at distance" in neighbours[0]

    pixels = explain(browser, "greyness")
    browser.until(
        f"[...{pixels}.querySelectorAll('.overlay img')].filter(image => image.naturalWidth > 0).length === 2"
    )

    for model, legend in (("topics", "raise the anomaly of msp"), ("words", "cost more bits")):
        text = "the ball of law <b>"
        browser.evaluate(f"document.querySelector('.try[data-url*=\"/{model}/\"] textarea').value = '{text}'")
        tokens = explain(browser, model)
        words = browser.evaluate(f"[...{tokens}.querySelectorAll('.tokens span')].map(word => word.textContent)")
        assert words[:4] == ["the", "ball", "of", "law"]
        assert legend in browser.evaluate(f"{tokens}.querySelector('figcaption').textContent")
        colours = browser.evaluate(
            f"[...{tokens}.querySelectorAll('.tokens span')].map(word => getComputedStyle(word).backgroundColor)"
        )
        assert len(set(colours)) > 1
    assert browser.complaints == []


def test_a_script_in_a_page_is_not_executed(service: ServiceProcess, browser: Browser) -> None:
    browser.open(f"{service.address}/")
    browser.until("document.querySelectorAll('article').length === 5")
    browser.evaluate(
        "(() => { const script = document.createElement('script'); script.textContent = 'window.executed = true';"
        " document.body.append(script); })()"
    )
    assert browser.evaluate("window.executed") is None
    assert any("Content Security Policy" in complaint for complaint in browser.complaints)
