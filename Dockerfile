# syntax=docker/dockerfile:1
# Targets: `cpu` and `gpu` serve, `training` trains. The dependencies are layers of their own, below the code: a change of
# the code copies a few files anew and installs nothing.
#
#   docker build --target cpu -t ood-scoring-service:cpu .

# CUDA and cuDNN come with the wheels of the `service-gpu` extra and the driver from the host, so the GPU's image needs no
# CUDA base; one can be given all the same, if it has this Python.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
ARG GPU_IMAGE=${PYTHON_IMAGE}
ARG TRAINING_IMAGE=${PYTHON_IMAGE}


FROM ${PYTHON_IMAGE} AS install-cpu
WORKDIR /app
# The package's metadata names a README; the real one would make every edit of it an installation.
RUN python -m venv /venv && touch README.md
COPY pyproject.toml constraints.txt LICENSE ./
COPY deploy/install deploy/install
RUN --mount=type=cache,target=/root/.cache/pip deploy/install /venv/bin/python service


FROM ${GPU_IMAGE} AS install-gpu
WORKDIR /app
RUN python -m venv /venv && touch README.md
COPY pyproject.toml constraints.txt LICENSE ./
COPY deploy/install deploy/install
RUN --mount=type=cache,target=/root/.cache/pip deploy/install /venv/bin/python service-gpu


FROM ${TRAINING_IMAGE} AS install-training
WORKDIR /app
RUN python -m venv /venv && touch README.md
COPY pyproject.toml constraints.txt LICENSE ./
COPY deploy/install deploy/install
RUN --mount=type=cache,target=/root/.cache/pip deploy/install /venv/bin/python training,transformers


FROM ${PYTHON_IMAGE} AS cpu
# Debian keeps only the newest version of a package: a pinned one cannot be installed a month later.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends tini && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin ood
ENV PATH=/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    OOD_HOST=0.0.0.0 OOD_PORT=8000 OOD_MODELS=/models OOD_PROVIDER=cpu OOD_LOG_FORMAT=json
WORKDIR /app
COPY --from=install-cpu /venv /venv
COPY --from=install-cpu /app /app
COPY bundle bundle
COPY service service
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=5s --timeout=3s --start-period=120s --start-interval=1s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ['OOD_PORT'] + '/readyz', timeout=2)"]
# tini hands SIGTERM on; the service answers what it accepted and ends.
ENTRYPOINT ["tini", "--", "python", "-m", "service"]


FROM ${GPU_IMAGE} AS gpu
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends tini && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin ood
ENV PATH=/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    OOD_HOST=0.0.0.0 OOD_PORT=8000 OOD_MODELS=/models OOD_PROVIDER=cuda OOD_LOG_FORMAT=json
WORKDIR /app
COPY --from=install-gpu /venv /venv
COPY --from=install-gpu /app /app
COPY bundle bundle
COPY service service
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=5s --timeout=3s --start-period=120s --start-interval=1s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ['OOD_PORT'] + '/readyz', timeout=2)"]
ENTRYPOINT ["tini", "--", "python", "-m", "service"]


FROM ${TRAINING_IMAGE} AS training
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends tini && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --create-home --shell /usr/sbin/nologin ood \
 && install -d -o 10001 -g 10001 /data /runs
ENV PATH=/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 OOD_DATA=/data
COPY --from=install-training /venv /venv
COPY --from=install-training /app /app
WORKDIR /app
COPY bundle bundle
COPY training training
USER 10001:10001
ENTRYPOINT ["tini", "--", "python", "-m", "training"]
