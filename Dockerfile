# The serving image. BASE_IMAGE is any Debian-based image: its own Python 3.11 or later is used, or Debian's installed.
ARG BASE_IMAGE=docker.io/library/python:3.12-slim

FROM ${BASE_IMAGE} AS python
RUN command -v python3 || { apt-get update && apt-get install -y --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*; }

FROM python AS requirements
WORKDIR /requirements
COPY requirements.lock ./
# torch and what it brings for GPUs apart: an index of its own has other files of them.
RUN python3 -c "import re; from pathlib import Path; \
own = re.compile('(torch|torchvision|triton|cuda-.+|nvidia-(?!ml-py).+)=='); \
locked = re.findall(r'^\S.*(?:\n +.*)*', Path('requirements.lock').read_text(), re.M); \
Path('torch.txt').write_text('\n'.join(filter(own.match, locked))); \
Path('other.txt').write_text('\n'.join(text for text in locked if not own.match(text)))"

FROM python AS dependencies
# Optional build secrets, gone after the step: pip.conf, where packages come from (an index, proxy or constraints of your
# own), and ca.crt, the certificates to trust on the way there.
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
# pip lives beside the environment, not in it: what serves has no use for it.
RUN python3 -c "import ensurepip" || { apt-get update && apt-get install -y --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*; }
RUN python3 -m venv /pip && python3 -m venv --without-pip /opt/stitchserve

# A layer of their own, made anew only when the lock changes: other changes neither download nor ship them again.
# TORCH_INDEX_URL is the index that torch and torchvision come from, such as one of CPU wheels; empty: as all others.
# The lock has no hashes of its files: from there they are taken by their versions alone.
ARG TORCH_INDEX_URL=""
COPY --from=requirements /requirements/*.txt /requirements/
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf --mount=type=secret,id=ca.crt,target=/run/ca.crt \
    if [ -s /run/ca.crt ]; then export PIP_CERT=/run/ca.crt; fi \
    && pip="/pip/bin/pip --python /opt/stitchserve/bin/python" && locked="--require-hashes --no-deps --requirement" \
    && $pip install $locked /requirements/other.txt \
    && if [ -z "$TORCH_INDEX_URL" ]; then $pip install $locked /requirements/torch.txt; else $pip install \
    --index-url "$TORCH_INDEX_URL" $(grep -oE '^torch(vision)?==[^ ]+' /requirements/torch.txt); fi \
    && $pip check

FROM dependencies AS build
WORKDIR /source
COPY . ./
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf --mount=type=secret,id=ca.crt,target=/run/ca.crt \
    if [ -s /run/ca.crt ]; then export PIP_CERT=/run/ca.crt; fi \
    && /pip/bin/pip wheel --no-deps --wheel-dir /wheel . \
    && /pip/bin/pip --python /opt/stitchserve/bin/python install --no-deps --no-index --prefix /app /wheel/*.whl

FROM python
LABEL org.opencontainers.image.title="stitchserve" \
    org.opencontainers.image.description="Inference server for stitchable neural networks" \
    org.opencontainers.image.licenses="Apache-2.0"
# The folder gives a new volume its owner: for STITCHSERVE_CACHE, to keep the latencies measured at start.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin stitchserve \
    && install -d -o stitchserve -g stitchserve /var/cache/stitchserve
COPY --from=dependencies /opt/stitchserve /opt/stitchserve
COPY --from=build /app /opt/stitchserve

# Only /tmp is written to, so that a read-only root will do.
ENV PATH=/opt/stitchserve/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    STITCHSERVE_HOST=0.0.0.0 \
    STITCHSERVE_CACHE=/tmp/stitchserve
WORKDIR /tmp
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
# Asks the port in STITCHSERVE_PORT, past any proxy. The start includes the profiling, 20 s by default.
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 CMD ["python", "-c", "import os; \
from urllib.request import ProxyHandler, build_opener; \
build_opener(ProxyHandler({})).open(f\"http://127.0.0.1:{os.environ.get('STITCHSERVE_PORT', 8000)}/readyz\", timeout=4)"]
ENTRYPOINT ["stitchserve"]
CMD ["serve"]
