# The suite's image, for `harness job`: docker build --file harness.Dockerfile .
# It runs on any node, and needs nothing from the checkout after the build. genie's own image is Dockerfile's.
FROM python:3.11-slim-bookworm
WORKDIR /suite
COPY requirements.lock .
RUN pip install --no-cache-dir --require-hashes -r requirements.lock
# Editable, because the shim is not compiled then: genie's image has it, and pods of this one only call the API server.
COPY pyproject.toml README.md LICENSE hatch_build.py ./
COPY genie genie
COPY harness harness
COPY fixtures fixtures
COPY scenarios scenarios
RUN pip install --no-cache-dir --no-deps --no-build-isolation --editable .
ENV PYTHONUNBUFFERED=1
ENTRYPOINT []
CMD ["harness", "--help"]
