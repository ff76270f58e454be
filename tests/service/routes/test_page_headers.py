"""Pages load scripts and styles from the service only, and no other page can frame them."""

import re

import pytest

from tests.service.conftest import Live


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_a_page_has_a_policy_without_inline_scripts(live: Live, path: str) -> None:
    answer = live.client.get(path)
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["referrer-policy"] == "no-referrer"
    # The page keeps to its policy: every script is a file, and nothing comes from elsewhere.
    assert re.findall(r"<script(?![^>]*\bsrc=)|\bon\w+=|<style", answer.text) == []
    links = re.findall(r'(?:src|href)="([^"]+)"', answer.text)
    assert [link for link in links if "//" in link] == []
    for link in links:
        if "assets/" in link:
            asset = live.client.get("/" + link)
            assert asset.status_code == 200
            assert asset.headers["content-type"].split(";")[0] in ("text/css", "text/javascript")


@pytest.mark.parametrize("path", ["/", "/docs", "/healthz", "/v1/models", "/nothing", "/assets/docs.js", "/metrics"])
def test_every_response_forbids_to_guess_its_type(live: Live, path: str) -> None:
    assert live.client.get(path).headers["x-content-type-options"] == "nosniff"
