# MemFactory on NVIDIA GPUs: docker build -f docker/cuda.Dockerfile -t memfactory:cuda .
# Not built and not run on a GPU.
FROM nvidia/cuda:13.0.0-devel-ubuntu24.04
RUN apt-get update && apt-get install -y --no-install-recommends python3 python3-venv python3-dev git make g++ \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /memfactory
COPY . .
RUN python3 -m venv /opt/venv && /opt/venv/bin/pip install --no-cache-dir -e '.[gpu]'
ENV PATH=/opt/venv/bin:$PATH
ENTRYPOINT ["memfactory"]
