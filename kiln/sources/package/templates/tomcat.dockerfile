# An unpacked war is the application ROOT; a `control` file beside WEB-INF starts it instead of the base's.
FROM {{base}}
COPY --link --chown=10001:10001{{#control}} --exclude=control{{/control}} . /opt/app/ROOT/
{{#control}}
COPY --link --chown=10001:10001 --chmod=0755 control /opt/app/control
{{/control}}
ENV PORT={{port}}
EXPOSE {{port}}
{{#control}}
CMD ["./control", "start", "{{port}}"]
{{/control}}
{{^control}}
CMD ["{{command}}", "start", "{{port}}"]
{{/control}}
