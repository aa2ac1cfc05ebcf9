# A container that keeps lakes in /data, see docs/install.md. Debian, because DuckDB has no wheels for Alpine.
FROM python:3.11-slim AS build
COPY pyproject.toml README.md LICENSE /src/
COPY pleo_extract /src/pleo_extract
RUN python -m venv /opt/pleo && /opt/pleo/bin/pip install --no-cache-dir '/src[delta]'

FROM python:3.11-slim
COPY --from=build /opt/pleo /opt/pleo
RUN useradd --system --uid 10001 --no-create-home pleo && install -d -o pleo /data
USER 10001
# Containers with the same volume share the rate limit of a key.
ENV HOME=/data XDG_CACHE_HOME=/data/.cache
VOLUME /data
WORKDIR /data
ENTRYPOINT ["/opt/pleo/bin/pleo-extract"]
CMD ["--help"]
