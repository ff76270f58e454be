"""The names of the service's metrics that dashboards, alerts and the documentation rely on."""

METRIC_NAMES = frozenset(
    {
        *("ood_http_requests", "ood_http_request_seconds", "ood_inputs", "ood_flagged_inputs", "ood_input_errors"),
        *("ood_anomaly_score", "ood_p_value", "ood_batch_size", "ood_queue_seconds", "ood_inference_seconds"),
        *("ood_preprocess_seconds", "ood_queue_depth", "ood_queue_capacity", "ood_rejected", "ood_model_info"),
        *("ood_provider_fallback", "ood_threshold", "ood_calibration_inputs", "ood_alpha", "ood_drift_evidence"),
        *("ood_traffic_share", "ood_shadow_dropped", "ood_shadow_disagreements", "ood_reloads"),
        *("ood_smallest_alpha", "ood_false_flag_rate_lower", "ood_false_flag_rate_upper"),
        *("ood_refused_bundles", "ood_lost_log_lines"),
        *("ood_engine_stalled_seconds", "ood_engine_stalls"),
    }
)
"""The families of `GET /metrics` without the suffix `_total` of counters."""
