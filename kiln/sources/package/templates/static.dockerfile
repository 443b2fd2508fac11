# Files for browsers: those below htdocs where there is such a folder, else those of the folder that has the first page.
FROM {{base}}
{{#htdocs}}
COPY --link --chown=10001:10001 . /opt/app/
{{/htdocs}}
{{^htdocs}}
COPY --link --chown=10001:10001{{#control}} --exclude=control{{/control}} {{#folder}}{{folder}}/{{/folder}}{{^folder}}.{{/folder}} /opt/app/htdocs/
{{/htdocs}}
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
