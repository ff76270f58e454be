"""API keys: the key file and the middleware that checks it. Imports http and the layers below it."""
