# A program with its own `control` file at the root, or one program that reads PORT.
FROM {{base}}
{{#file}}
COPY --link --chown=10001:10001 --chmod=0755 {{file}} /opt/app/{{file}}
{{/file}}
{{^file}}
COPY --link --chown=10001:10001 . /opt/app/
{{#control}}
COPY --link --chown=10001:10001 --chmod=0755 control /opt/app/control
{{/control}}
{{/file}}
ENV PORT={{port}}
EXPOSE {{port}}
{{#control}}
CMD ["./control", "start", "{{port}}"]
{{/control}}
{{^control}}
{{#main}}
ENV APP_PROGRAM={{main}}
{{/main}}
CMD ["{{command}}", "start", "{{port}}"]
{{/control}}
