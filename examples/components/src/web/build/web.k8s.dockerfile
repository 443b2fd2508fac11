# `kiln bake --variant k8s` takes this file, and those with .common or no suffix; the image is called `web` all the same.
FROM base-tools:latest
COPY dependency/api/generated/SUMS ./
COPY pages/ pages/
ENV RUNS_ON=k8s
