"""HTTP connections, deadlines and bodies, before any scoring protocol. Imports telemetry and the layers below it."""
