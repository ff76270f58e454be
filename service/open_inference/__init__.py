"""The Open Inference Protocol (KServe V2, REST): requests, tensors and answers, in JSON and in binary."""
