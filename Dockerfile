# Two images from one source: `api` (no torch) and `worker`.

FROM python:3.11-slim AS base
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# Neither the API nor the worker needs to be root. A new volume at /data takes over this folder's owner.
RUN useradd --create-home --uid 1000 dianaq && install -d -o dianaq -g dianaq -m 700 /data
ENV DIANAQ_DATA_DIR=/data
WORKDIR /app
COPY pyproject.toml README.md LICENSE ./
COPY client client
COPY service service
COPY worker worker

FROM base AS api
RUN pip install ".[service]"
USER dianaq
VOLUME /data
# Not loopback, so the API refuses to start without DIANAQ_API_KEY.
ENV DIANAQ_HOST=0.0.0.0 DIANAQ_PORT=8000
EXPOSE 8000
CMD ["python", "-m", "dianaq_service"]

FROM base AS worker
# torch as the package index provides it, with CUDA on Linux. For another build (CPU alone is a tenth of the size), give
# the index that "Get started" on pytorch.org names for it: --build-arg TORCH_INDEX=URL
ARG TORCH_INDEX=
# Training compiles its kernels when it starts (worker/dianaq_quant/kernels); without a compiler it runs, and takes longer.
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
RUN pip install ${TORCH_INDEX:+--extra-index-url "${TORCH_INDEX}"} ".[worker]"
USER dianaq
VOLUME /data
CMD ["python", "-m", "dianaq_worker"]
