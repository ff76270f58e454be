# syntax=docker/dockerfile:1
# Targets: `cpu` and `gpu` serve, `training` trains. Dependencies are in layers below the code: a change of the code copies
# a few files and installs nothing.
#
#   docker build --target cpu -t ood-scoring-service:cpu .

# Also for GPUs: the wheels of the `service-gpu` extra contain CUDA and cuDNN, and the host provides the driver.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm


FROM ${PYTHON_IMAGE} AS install
WORKDIR /app
# The package's metadata needs a README. With the real one every edit of it would install everything again.
RUN python -m venv /venv && touch README.md
COPY pyproject.toml constraints.txt LICENSE ./
COPY deploy/install deploy/install


FROM install AS install-cpu
RUN --mount=type=cache,target=/root/.cache/pip deploy/install /venv/bin/python service,grpc


FROM install AS install-gpu
RUN --mount=type=cache,target=/root/.cache/pip deploy/install /venv/bin/python service-gpu,grpc


FROM install AS install-training
RUN --mount=type=cache,target=/root/.cache/pip deploy/install /venv/bin/python training,transformers


FROM ${PYTHON_IMAGE} AS runtime
WORKDIR /app
# Not pinned: Debian keeps only the newest version of a package, so a pinned one could soon not be installed.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends tini && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --create-home --shell /usr/sbin/nologin ood
ENV PATH=/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001:10001


FROM runtime AS serving
ENV OOD_HOST=0.0.0.0 OOD_PORT=8000 OOD_MODELS=/models OOD_LOG_FORMAT=json
EXPOSE 8000
HEALTHCHECK --interval=5s --timeout=3s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ['OOD_PORT'] + '/readyz', timeout=2)"]
# tini forwards SIGTERM; the service answers its accepted requests and exits.
ENTRYPOINT ["tini", "--", "python", "-m", "service"]


FROM serving AS cpu
ENV OOD_PROVIDER=cpu
COPY --from=install-cpu /venv /venv
COPY --from=install-cpu /app /app
COPY bundle bundle
COPY datafiles datafiles
COPY service service


FROM serving AS gpu
# The container runtime refuses an older driver than CUDA 13.0 needs. Which GPUs are visible is for the orchestrator to say:
# with `all` here, a pod that asked for none would see all.
ENV OOD_PROVIDER=cuda NVIDIA_DRIVER_CAPABILITIES=compute,utility NVIDIA_REQUIRE_CUDA="cuda>=13.0"
COPY --from=install-gpu /venv /venv
COPY --from=install-gpu /app /app
COPY bundle bundle
COPY datafiles datafiles
COPY service service


FROM runtime AS training
USER 0
RUN install -d -o 10001 -g 10001 /data /runs
USER 10001:10001
ENV OOD_DATA=/data NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=install-training /venv /venv
COPY --from=install-training /app /app
COPY bundle bundle
COPY datafiles datafiles
COPY training training
ENTRYPOINT ["tini", "--", "python", "-m", "training"]
