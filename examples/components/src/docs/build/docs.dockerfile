FROM scratch
COPY dependency/api/generated/pages /old
COPY dependency/web/pages /new
