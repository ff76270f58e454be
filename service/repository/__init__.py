"""The served bundles: loading, reloading, traffic rules, shadows. May import telemetry and the layers below it."""
