"""Likelihoods, one file each: what a density network's output says about the input it was computed for, in nats."""

from training.likelihoods.discretized_logistic_mixture import discretized_logistic_mixture_nats, parameters_needed

__all__ = ["discretized_logistic_mixture_nats", "parameters_needed"]
