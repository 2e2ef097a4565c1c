# A stand-in for the official python image: python, pip and venv on the same Debian release.
FROM debian:trixie-minbase
# hadolint ignore=DL3008
RUN apt-get update -qq \
    && apt-get install -qq --no-install-recommends python3.13 python3-pip python3-venv >/dev/null \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*.deb \
        /usr/lib/python3*/EXTERNALLY-MANAGED /usr/lib/python3*/sitecustomize.py \
    && ln -s /usr/bin/python3 /usr/local/bin/python && ln -s /usr/bin/python3 /usr/local/bin/python3
COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt PIP_CERT=/etc/ssl/certs/ca-certificates.crt
CMD ["python3"]
