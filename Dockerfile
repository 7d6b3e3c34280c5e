# segvit in an image: `segvit app`, and every other verb. docs/docker.md tells how to build and run it.
#
#   docker build --tag segvit .                                          # for NVIDIA GPUs, and for CPUs as well
#   docker build --tag segvit:cpu --build-arg TORCH_INDEX=ADDRESS .      # for CPUs alone: no CUDA inside
#   docker run --read-only --tmpfs /tmp --publish 127.0.0.1:7860:7860 --volume "$PWD/models:/models:ro" segvit

ARG BASE=python:3.12-slim-bookworm

FROM ${BASE} AS build
# The index that PyTorch's page names for CPU builds. Empty: pip's own, whose builds for Linux bring CUDA with them.
ARG TORCH_INDEX=""
# Of segvit: the page, .onnx models, video.
ARG EXTRAS="app,export,video"
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python -m venv /opt/segvit
# PyTorch in a layer of its own: it is most of the image, and changes least. The other index has builds of PyTorch at
# other pins of what PyTorch needs, so that comes from pip's own, which leaves a PyTorch of the right version alone.
COPY constraints.txt ./
RUN if [ -n "${TORCH_INDEX}" ]; then \
        /opt/segvit/bin/pip install --no-deps -i "${TORCH_INDEX}" -c constraints.txt torch torchvision; \
    fi && \
    /opt/segvit/bin/pip install -c constraints.txt torch torchvision
COPY pyproject.toml README.md LICENSE ./
COPY configs configs
COPY segvit segvit
RUN /opt/segvit/bin/pip install -c constraints.txt ".[${EXTRAS}]"

FROM ${BASE}
# Models are mounted at /models and only read. What is written goes to /tmp (uploads, and results until they are
# deleted), /output (of `segvit predict`) and /cache (models of the Hub), and nowhere else.
RUN install --directory /models && install --directory --owner 10001 --group 10001 /cache /output
COPY --from=build /opt/segvit /opt/segvit
ENV PATH="/opt/segvit/bin:${PATH}" \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    USER=segvit \
    XDG_CACHE_HOME=/cache \
    MPLCONFIGDIR=/tmp/matplotlib
# A number, so that a cluster can see that it is not root; it needs no entry in /etc/passwd.
USER 10001:10001
WORKDIR /output
EXPOSE 7860
# It answers 200 while the models of every worker are loaded, and needs no key. The image holds no curl.
HEALTHCHECK --interval=30s --timeout=10s --start-period=120s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:7860/health', timeout=8).read(1)"]
ENTRYPOINT ["segvit"]
CMD ["app", "/models/model.safetensors", "--host", "0.0.0.0", "--port", "7860"]
