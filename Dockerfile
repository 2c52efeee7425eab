# The monitor: workers, feeds and reports. Slim, no root, nothing written outside /data.
FROM python:3.11-slim AS build
WORKDIR /build
COPY requirements/monitor.txt requirements/
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir --disable-pip-version-check -r requirements/monitor.txt
COPY pyproject.toml README.md LICENSE ./
COPY cryptocore cryptocore
COPY alerts alerts
COPY streams streams
COPY reports reports
RUN /venv/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps .

FROM python:3.11-slim
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin keytrail \
    && mkdir /data && chown keytrail /data
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 KEYTRAIL_DATA_DIR=/data
USER 10001
WORKDIR /data
ENTRYPOINT ["keytrail"]
CMD ["worker"]
