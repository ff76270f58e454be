"""The Open Inference Protocol (KServe V2) over REST and gRPC, with its repository extension. Imports auth, pipeline and lower layers."""
