# MemFactory on CPUs: docker build -f docker/cpu.Dockerfile -t memfactory:cpu .   (not built here)
FROM python:3.11-slim
RUN apt-get update && apt-get install -y --no-install-recommends make git g++ && rm -rf /var/lib/apt/lists/*
WORKDIR /memfactory
COPY . .
RUN make install
ENV PATH=/memfactory/.venv/bin:$PATH
ENTRYPOINT ["memfactory"]
