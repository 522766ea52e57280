# genie's image: the agent, the shim for both architectures, `genie install`, and the harness's probe, so that a test needs no other.
# For amd64 and arm64: docker buildx build --platform linux/amd64,linux/arm64 . The first stage runs on the builder's own architecture,
# whatever the image's is, and the second runs nothing, so nothing is emulated. The plain builder does as well, for its own.

FROM --platform=${BUILDPLATFORM:-linux} python:3.11-slim-bookworm AS build
WORKDIR /src
RUN python -m venv /opt/build && /opt/build/bin/pip install --no-cache-dir "hatchling>=1.27" "ziglang>=0.13"
# Compiled for both architectures here, and once more in a moment when the wheel is built: that one finds the compiler's cache,
# with the C library that it takes a minute to build, as long as the shim is the same.
COPY genie/agent/shim.py genie/agent/shim.c shim/
RUN cd shim && /opt/build/bin/python -c "import pathlib, shim; [shim.build(a, pathlib.Path(a)) for a in shim.ARCHITECTURES]"
# What differs between architectures is PyYAML's wheel.
ARG TARGETARCH
RUN case "${TARGETARCH:-$(uname -m)}" in amd64|x86_64) arch=x86_64 ;; arm64|aarch64) arch=aarch64 ;; \
    *) echo "genie has no image for $TARGETARCH" >&2; exit 1 ;; esac \
 && python -m pip install --no-cache-dir --target /opt/genie --only-binary :all: --python-version 3.11 --implementation cp \
    --platform "manylinux_2_28_$arch" --platform "manylinux2014_$arch" "pyyaml>=6" "pyroute2>=0.9"
# nft, for network policies: Debian's, unpacked here so that nothing of the image's architecture has to run. What the
# packages need and the image lacks; they have no scripts that matter.
RUN arch=${TARGETARCH:-$(dpkg --print-architecture)} && dpkg --add-architecture "$arch" && apt-get update -qq && mkdir /opt/nft && cd /tmp \
 && apt-get download "nftables:$arch" "libnftables1:$arch" "libnftnl11:$arch" "libmnl0:$arch" "libjansson4:$arch" "libxtables12:$arch" \
    "libgmp10:$arch" "libedit2:$arch" "libbsd0:$arch" "libmd0:$arch" \
 && for deb in ./*.deb; do dpkg-deb --extract "$deb" /opt/nft; done && rm -rf ./*.deb /opt/nft/usr/share /opt/nft/etc \
 && if [ -d /opt/nft/lib ]; then cp -a /opt/nft/lib/. /opt/nft/usr/lib/ && rm -r /opt/nft/lib; fi
# From here on layers change with genie.
COPY pyproject.toml README.md LICENSE hatch_build.p[y] ./
COPY genie genie
COPY harness/__init__.py harness/flow.py harness/probe.py harness/
RUN /opt/build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /dist . \
 && python -m pip install --no-cache-dir --no-deps --target /opt/genie --upgrade /dist/*.whl

FROM python:3.11-slim-bookworm
COPY --from=build /opt/nft /
COPY --from=build /opt/genie /opt/genie
ENV PATH=/opt/genie/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONPATH=/opt/genie PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
ENTRYPOINT ["genie"]
