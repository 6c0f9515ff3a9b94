# Planning and simulation: the solver and the pictures, no torch, no server.
FROM python:3.11-slim

WORKDIR /opt/penstock
COPY . .
RUN pip install --no-cache-dir -c constraints.txt '.[planner]' \
 && rm -rf /opt/penstock \
 && useradd --create-home penstock

USER penstock
WORKDIR /home/penstock
ENTRYPOINT ["penstock"]
CMD ["plan", "--help"]
