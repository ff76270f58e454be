"""Which bundles are served: scan, load, reload, traffic rules, shadows. Imports telemetry and the layers below it."""
