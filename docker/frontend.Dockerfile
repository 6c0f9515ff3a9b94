# The frontend, and the client's verbs (health, status, bench): neither torch nor a solver inside.
FROM python:3.11-slim

WORKDIR /opt/penstock
COPY . .
RUN pip install --no-cache-dir -c constraints.txt . \
 && rm -rf /opt/penstock \
 && useradd --create-home penstock

USER penstock
WORKDIR /home/penstock
ENTRYPOINT ["penstock"]
CMD ["frontend", "--help"]
