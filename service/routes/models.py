"""`GET /v1/models...`: the served models, their provenance, and the refused bundles."""

from service.http.problem_json import PROBLEM_JSON
from service.http.route import Route
from service.lifecycle import Lifecycle
from service.repository.model import Model
from service.repository.served import Repository
from service.repository.traffic import Traffic
from service.routes.schemas import (
    CalibrationAnswer,
    CanaryAnswer,
    FalseFlagRateAnswer,
    ModelDetail,
    ModelList,
    ModelSummary,
    RefusedBundle,
    TrafficAnswer,
)


def routes(repository: Repository, lifecycle: Lifecycle) -> list[Route]:
    """The routes that describe the models of `repository`."""

    async def list_models() -> ModelList:
        """Every served model, and every refused bundle with the reason."""
        lifecycle.require_loaded()
        return ModelList(
            models=[_summary(repository, repository.get(name)) for name in repository.names],
            refused=[RefusedBundle(path=bundle.path, reason=bundle.reason) for bundle in repository.refused],
        )

    async def get_model(model: str) -> ModelDetail:
        """The version of a model that answers requests without a version, with its provenance and evaluation."""
        lifecycle.require_loaded()
        return _detail(repository, repository.get(model))

    async def get_version(model: str, version: str) -> ModelDetail:
        """One version of a model, with its provenance and evaluation."""
        lifecycle.require_loaded()
        return _detail(repository, repository.get(model, version))

    unknown = PROBLEM_JSON.responses({404: "Unknown model or version.", 503: "Starting."})
    return [
        Route(
            "/v1/models",
            list_models,
            tags=["models"],
            response_model=ModelList,
            responses=PROBLEM_JSON.responses({503: "Starting."}),
        ),
        Route("/v1/models/{model}", get_model, tags=["models"], response_model=ModelDetail, responses=unknown),
        Route(
            "/v1/models/{model}/versions/{version}",
            get_version,
            tags=["models"],
            response_model=ModelDetail,
            responses=unknown,
        ),
    ]


def _summary(repository: Repository, model: Model) -> ModelSummary:
    manifest = model.bundle.manifest
    return ModelSummary(
        name=model.name,
        version=model.version,
        versions=repository.versions(model.name),
        traffic=_traffic(repository.traffic(model.name)),
        description=manifest.description,
        modality=manifest.modality,
        task=manifest.task,
        input=manifest.input,
        labels=manifest.labels,
        scores=list(model.option_limits.scores),
        default_score=model.option_limits.default_score,
        likelihood=manifest.likelihood,
        explanations=list(model.option_limits.explanations),
        alpha=model.scorer.alpha,
        calibration=_calibration(model),
        thresholds=model.scorer.thresholds,
        precision=manifest.precision,
        provider=model.provider,
    )


def _calibration(model: Model) -> CalibrationAnswer:
    calibration = model.bundle.manifest.calibration
    rate = model.scorer.false_flag_rates[model.option_limits.default_score]
    return CalibrationAnswer(
        n=calibration.n,
        source=calibration.source,
        smallest_alpha=rate.smallest_alpha,
        false_flag_rate=FalseFlagRateAnswer(lower=rate.lower, upper=rate.upper, exceeds_alpha=rate.exceeds_alpha),
    )


def _traffic(traffic: Traffic) -> TrafficAnswer:
    return TrafficAnswer(
        serve=traffic.serve.version,
        canary=CanaryAnswer(version=traffic.canary.version, percent=traffic.percent) if traffic.canary else None,
        shadow=[shadow.version for shadow in traffic.shadows],
    )


def _detail(repository: Repository, model: Model) -> ModelDetail:
    manifest = model.bundle.manifest
    return ModelDetail(
        **dict(_summary(repository, model)),
        default_score_reason=manifest.default_score_reason,
        training=manifest.training,
        evaluation=manifest.evaluation,
    )
