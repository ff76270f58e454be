"""The Open Inference Protocol (KServe V2) over REST and gRPC. Imports auth, pipeline and the layers below them."""
