# FlexLLM-Server as a container image; docs/docker.md has the commands.
#
#   BASE_IMAGE  Debian 12
#   XRT_DEB     AMD's XRT package, a path in the build context or a URL; default: Debian's XRT 2.13.
#               It must match the host's driver (docs/docker.md#xrt-must-match-the-driver).
ARG BASE_IMAGE=docker.io/library/debian:12-slim
ARG XRT_DEB=scripts/container/install-xrt

FROM ${BASE_IMAGE} AS build
ARG XRT_DEB
WORKDIR /opt/flexllm
COPY scripts/debian-packages.txt scripts/container/ /setup/
ADD ${XRT_DEB} /setup/
RUN apt-get update \
 && grep -vE '^(#|ccache|clang-|git$|libxrt|shellcheck)' /setup/debian-packages.txt \
    | xargs apt-get install -y --no-install-recommends \
 && sh /setup/install-xrt dev
COPY . .
RUN sh scripts/container/build

FROM ${BASE_IMAGE}
ARG XRT_DEB
WORKDIR /opt/flexllm
COPY scripts/container/ /setup/
ADD ${XRT_DEB} /setup/
COPY --from=build /opt/flexllm/runtime-packages.txt /setup/
RUN apt-get update \
 && xargs apt-get install -y --no-install-recommends < /setup/runtime-packages.txt \
 && sh /setup/install-xrt \
 && mv /setup/healthcheck /usr/local/bin/flexllm-healthcheck \
 && rm -rf /setup /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin flexllm \
 && install -d -o flexllm -g flexllm /var/cache/flexllm
COPY --from=build /opt/flexllm/build/image/ /opt/flexllm/
ENV PATH=/opt/flexllm/bin:$PATH \
    FLEXLLM_CACHE=/var/cache/flexllm \
    FLEXLLM_HOST=0.0.0.0
VOLUME /var/cache/flexllm
USER flexllm
EXPOSE 8080
HEALTHCHECK --interval=15s --timeout=5s --start-period=120s CMD ["flexllm-healthcheck"]
ENTRYPOINT ["/opt/flexllm/bin/flexllm", "serve"]
