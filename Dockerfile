# Two images of one source: `runtime` serves models, `operator` watches Kubernetes. docs/images.md has the commands.
ARG PYTHON=3.11
# The date of all that is generated (1980, zip's first), so that builds of one source agree.
ARG SOURCE_DATE_EPOCH=315532800

FROM python:${PYTHON}-slim-bookworm AS base
ENV PATH=/opt/tdpipe/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
RUN useradd --uid 10001 --user-group --no-log-init --home-dir /home/tdpipe tdpipe \
    && install --directory --owner 10001 --group 10001 /home/tdpipe

# Lists of their own, so that an edit elsewhere in pyproject.toml leaves the dependencies' layers cached.
FROM base AS requirements
WORKDIR /requirements
COPY pyproject.toml ./
RUN for extra in runtime operator; do \
      python -c "import sys, tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
print(*project['dependencies'], *project['optional-dependencies'][sys.argv[1]], sep='\n')" \
        "$extra" > "$extra.txt" || exit 1; \
    done

FROM base AS builder
ARG SOURCE_DATE_EPOCH
ENV PIP_CONSTRAINT=/requirements/constraints.txt \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore \
    SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH}
COPY constraints.txt /requirements/
RUN python -m venv --without-pip /opt/tdpipe

# tdpipe itself, under a root of its own, to be copied over the packages: only this layer changes with the source.
FROM builder AS package
WORKDIR /source
COPY LICENSE README.md pyproject.toml ./
COPY operator operator
COPY runtime runtime
RUN pip --python /opt/tdpipe/bin/python install --no-deps --root /package .

FROM builder AS runtime-packages
# torch comes from the index that pip is configured for, unless TORCH_INDEX names another one. It comes without its
# dependencies, which an index of torch builds may lack.
ARG TORCH=torch
ARG TORCH_INDEX
RUN pip --python /opt/tdpipe/bin/python install --no-deps ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$TORCH"
COPY --from=requirements /requirements/runtime.txt /requirements/
RUN pip --python /opt/tdpipe/bin/python install --requirement /requirements/runtime.txt

FROM builder AS operator-packages
COPY --from=requirements /requirements/operator.txt /requirements/
RUN pip --python /opt/tdpipe/bin/python install --requirement /requirements/operator.txt

# Compiles the CPU attention kernel. The kernel's cache asks the compiler for its version, so the runtime image gets
# a stand-in that knows this one's and compiles nothing: a compiler would add more than 100 MB.
FROM runtime-packages AS kernel
ENV CC=/opt/tdpipe/bin/kernel-compiler \
    HOME=/home/tdpipe
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && ln -s /usr/bin/gcc "$CC"
COPY --from=package /package /
RUN python -c "from tdpipe.model.attention.cpu.build import build; build()" \
    && mkdir /stand-in \
    && "$CC" --version > /stand-in/kernel-compiler.version \
    && printf '#!/bin/sh\n%s\n%s\n' \
        '[ "$*" = --version ] && exec cat "$0.version"' \
        'echo "error: this image holds no compiler" >&2; exit 1' > /stand-in/kernel-compiler \
    && chmod 755 /stand-in/kernel-compiler

FROM base AS runtime
ARG PYTHON
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/log/apt /var/log/dpkg.log
COPY --from=runtime-packages /opt/tdpipe /opt/tdpipe
# Where the package looks for its demo model.
COPY examples/demo_model/checkpoint /opt/tdpipe/lib/python${PYTHON}/examples/demo_model/checkpoint
COPY --from=package /package /
COPY --from=kernel /stand-in /opt/tdpipe/bin
COPY --from=kernel --chown=10001:10001 /home/tdpipe/.cache /home/tdpipe/.cache
# Without HOME, a pod that runs as another user would look for the kernel elsewhere.
ENV CC=/opt/tdpipe/bin/kernel-compiler \
    HOME=/home/tdpipe
USER 10001:10001
WORKDIR /home/tdpipe
RUN python -c "from tdpipe.model.attention.cpu.backend import CpuAttention; CpuAttention()"
EXPOSE 8000
ENTRYPOINT ["tdpipe"]
CMD ["serve", "--host", "0.0.0.0"]
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="tdpipe" \
      org.opencontainers.image.description="Serves a language model on pipeline stages" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

FROM base AS operator
COPY --from=operator-packages /opt/tdpipe /opt/tdpipe
COPY --from=package /package /
USER 10001:10001
WORKDIR /home/tdpipe
ENTRYPOINT ["kopf"]
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="tdpipe-operator" \
      org.opencontainers.image.description="Reconciles tdpipe's Kubernetes resources" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
