FROM base-tools
COPY generated/NUMBER ./
COPY dependency/common/lib/ lib/
COPY api.sh bin/api
CMD ["/bin/sh", "bin/api"]
