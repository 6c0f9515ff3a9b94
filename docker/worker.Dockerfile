# A worker with its executors. The default index brings torch for the CPU (emulated and cpu
# executors); for CUDA build with --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130
FROM python:3.11-slim

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

WORKDIR /opt/penstock
COPY . .
RUN pip install --no-cache-dir -c constraints.txt --extra-index-url "${TORCH_INDEX}" '.[worker]' \
 && rm -rf /opt/penstock \
 && useradd --create-home penstock

USER penstock
WORKDIR /home/penstock
# Instances are reached under the name of their container, so that a service can have replicas.
ENTRYPOINT ["/bin/sh", "-c", "PENSTOCK_HOST=${PENSTOCK_HOST:-$HOSTNAME} exec penstock \"$@\"", "penstock"]
CMD ["worker", "--help"]
