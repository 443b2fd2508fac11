# A jar with what it needs beside it, or an unpacked jar.
FROM {{base}}
COPY --link --chown=10001:10001 . /opt/app/
{{#control}}
COPY --link --chown=10001:10001 --chmod=0755 control /opt/app/control
{{/control}}
ENV PORT={{port}}
{{#file}}
ENV APP_JAR={{file}}
{{/file}}
EXPOSE {{port}}
{{#control}}
CMD ["./control", "start", "{{port}}"]
{{/control}}
{{^control}}
CMD ["{{command}}", "start", "{{port}}"]
{{/control}}
