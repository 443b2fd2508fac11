# What the other components stand on. `kiln bootstrap debian -t debian:bookworm` makes its own base.
ARG BASE=debian:bookworm
FROM ${BASE}
COPY profile.sh /etc/profile.d/tools.sh
WORKDIR /srv
