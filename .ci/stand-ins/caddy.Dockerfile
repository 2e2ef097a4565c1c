# A stand-in for the official caddy image: caddy with its file capability, its paths, wget.
FROM debian:trixie-minbase
# hadolint ignore=DL3008
RUN apt-get update -qq \
    && apt-get install -qq --no-install-recommends caddy libcap2-bin wget >/dev/null \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*.deb \
    && setcap cap_net_bind_service=+ep /usr/bin/caddy \
    && install --directory --mode=1777 /config/caddy /data/caddy
ENV XDG_CONFIG_HOME=/config XDG_DATA_HOME=/data
WORKDIR /srv
EXPOSE 80 443 2019
CMD ["caddy", "run", "--config", "/etc/caddy/Caddyfile", "--adapter", "caddyfile"]
