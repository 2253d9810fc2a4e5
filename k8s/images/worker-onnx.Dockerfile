# Built from the repository's root, after `hatchling build -t wheel`:
#   docker build -f k8s/images/worker-onnx.Dockerfile -t sekisho-worker-onnx:0.1.0 .

FROM python:3.12-slim AS build
ARG SEKISHO_VERSION=0.1.0
# pip installs from outside: it is no part of the environment that is shipped.
RUN python -m venv --without-pip /opt/sekisho
COPY locks/worker-onnx.txt /build/
RUN pip --python /opt/sekisho install --no-cache-dir --require-hashes --only-binary :all: -r /build/worker-onnx.txt
COPY dist/sekisho-${SEKISHO_VERSION}-py3-none-any.whl /build/
RUN pip --python /opt/sekisho install --no-cache-dir --no-index --no-deps /build/sekisho-${SEKISHO_VERSION}-py3-none-any.whl

FROM python:3.12-slim
RUN groupadd --gid 10001 sekisho \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin sekisho
COPY --from=build /opt/sekisho /opt/sekisho
# ONNX Runtime would send usage data to its maker, and keep a device id in the user's home.
ENV ORT_DISABLE_TELEMETRY=1
ENV PATH=/opt/sekisho/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# By number: Kubernetes cannot tell that a user given by name is not root.
USER 10001:10001
EXPOSE 8090
ENTRYPOINT ["sekisho-worker"]
