# What the other components stand on.
ARG BASE=base
FROM ${BASE}
COPY profile.sh /etc/profile.d/tools.sh
WORKDIR /srv
