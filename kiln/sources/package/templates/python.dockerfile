# What the package asks for (requirements.txt, pip_requirements.txt, else pyproject.toml or setup.py) is installed beside it, as the
# user that runs it; the cache is this application's own. The secret pip.conf, if the build is given
# one, says where from (an index of your own, and what it wants to know); the secret ca.crt holds the certificates to trust.
FROM {{base}}
COPY --link --chown=10001:10001 . /opt/app/
{{#control}}
COPY --link --chown=10001:10001 --chmod=0755 control /opt/app/control
{{/control}}
{{#requirements.txt}}
RUN --mount=type=cache,id=pip-{{owner}}-{{app}},target=/var/tmp/pip,uid=10001,gid=10001 \
    --mount=type=secret,id=pip.conf,uid=10001 --mount=type=secret,id=ca.crt,uid=10001 \
    [ ! -f /run/secrets/ca.crt ] || export PIP_CERT=/run/secrets/ca.crt; PIP_CONFIG_FILE=/run/secrets/pip.conf \
    /opt/venv/bin/python -I -m pip install --no-input --disable-pip-version-check --cache-dir /var/tmp/pip -r requirements.txt
{{/requirements.txt}}
{{#pip_requirements.txt}}
RUN --mount=type=cache,id=pip-{{owner}}-{{app}},target=/var/tmp/pip,uid=10001,gid=10001 \
    --mount=type=secret,id=pip.conf,uid=10001 --mount=type=secret,id=ca.crt,uid=10001 \
    [ ! -f /run/secrets/ca.crt ] || export PIP_CERT=/run/secrets/ca.crt; PIP_CONFIG_FILE=/run/secrets/pip.conf \
    /opt/venv/bin/python -I -m pip install --no-input --disable-pip-version-check --cache-dir /var/tmp/pip -r pip_requirements.txt
{{/pip_requirements.txt}}
{{^requirements.txt}}
{{#pyproject.toml}}
RUN --mount=type=cache,id=pip-{{owner}}-{{app}},target=/var/tmp/pip,uid=10001,gid=10001 \
    --mount=type=secret,id=pip.conf,uid=10001 --mount=type=secret,id=ca.crt,uid=10001 \
    [ ! -f /run/secrets/ca.crt ] || export PIP_CERT=/run/secrets/ca.crt; PIP_CONFIG_FILE=/run/secrets/pip.conf \
    /opt/venv/bin/python -I -m pip install --no-input --disable-pip-version-check --cache-dir /var/tmp/pip .
{{/pyproject.toml}}
{{^pyproject.toml}}
{{#setup.py}}
RUN --mount=type=cache,id=pip-{{owner}}-{{app}},target=/var/tmp/pip,uid=10001,gid=10001 \
    --mount=type=secret,id=pip.conf,uid=10001 --mount=type=secret,id=ca.crt,uid=10001 \
    [ ! -f /run/secrets/ca.crt ] || export PIP_CERT=/run/secrets/ca.crt; PIP_CONFIG_FILE=/run/secrets/pip.conf \
    /opt/venv/bin/python -I -m pip install --no-input --disable-pip-version-check --cache-dir /var/tmp/pip .
{{/setup.py}}
{{/pyproject.toml}}
{{/requirements.txt}}
ENV PORT={{port}}
{{#main}}
ENV APP_MODULE={{main}}
{{/main}}
EXPOSE {{port}}
{{#control}}
CMD ["./control", "start", "{{port}}"]
{{/control}}
{{^control}}
CMD ["{{command}}", "start", "{{port}}"]
{{/control}}
