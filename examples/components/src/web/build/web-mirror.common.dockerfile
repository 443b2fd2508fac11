# Two images of one component may stand on one another.
FROM scratch
COPY --from=web /srv/pages /pages
