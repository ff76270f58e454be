"""Routes that score nothing: health, metrics, models, drift, console, OpenAPI. Imports protocols and lower layers."""
