# genie's image: the agent, the shim for both architectures, `genie install`, and the harness's probe, so that a test needs no other.
# One file for amd64 and arm64; nothing in it needs more than the plain builder.

FROM python:3.11-slim-bookworm AS build
WORKDIR /src
RUN python -m venv /opt/genie && python -m venv /opt/build \
 && /opt/build/bin/pip install --no-cache-dir "hatchling>=1.27" "ziglang>=0.13" \
 && /opt/genie/bin/pip install --no-cache-dir "pyyaml>=6" "pyroute2>=0.9"
# Compiled for both architectures here, and once more in a moment when the wheel is built: that one finds the compiler's cache,
# with the C library that it takes a minute to build, as long as the shim is the same.
COPY genie/agent/shim.py genie/agent/shim.c shim/
RUN cd shim && /opt/build/bin/python -c "import pathlib, shim; [shim.build(a, pathlib.Path(a)) for a in shim.ARCHITECTURES]"
# From here on layers change with genie.
COPY pyproject.toml README.md LICENSE hatch_build.p[y] ./
COPY genie genie
COPY harness/__init__.py harness/probe.py harness/
RUN /opt/build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /dist . \
 && /opt/genie/bin/pip install --no-cache-dir --no-deps /dist/*.whl \
 && rm -rf /opt/genie/lib/python3*/site-packages/pip /opt/genie/lib/python3*/site-packages/pip-* \
           /opt/genie/lib/python3*/site-packages/setuptools* /opt/genie/lib/python3*/site-packages/pkg_resources /opt/genie/bin/pip*

FROM python:3.11-slim-bookworm
COPY --from=build /opt/genie /opt/genie
ENV PATH=/opt/genie/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
ENTRYPOINT ["genie"]
