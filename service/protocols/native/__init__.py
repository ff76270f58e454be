"""The service's own HTTP protocol, `POST /v1/models/{model}/score`. Imports pipeline and the layers below it."""
