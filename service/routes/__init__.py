"""Routes that score nothing: health, metrics, models, admin, console, OpenAPI. Imports protocols and lower layers."""
