# The web server's folder is htdocs, else the one with the index.php that frameworks keep apart from their own files (public,
# web), else the whole package. The package's config/nginx.conf, config/php.ini and config/php-fpm.conf replace those of
# the base.
FROM {{base}}
{{#htdocs}}
COPY --link --chown=10001:10001 . /opt/app/
{{/htdocs}}
{{^htdocs}}
{{#folder}}
COPY --link --chown=10001:10001 . /opt/app/
ENV WEB_ROOT=/opt/app/{{folder}}
{{/folder}}
{{^folder}}
COPY --link --chown=10001:10001{{#control}} --exclude=control{{/control}}{{#config/nginx.conf}} --exclude=config/nginx.conf{{/config/nginx.conf}}{{#config/php.ini}} --exclude=config/php.ini{{/config/php.ini}}{{#config/php-fpm.conf}} --exclude=config/php-fpm.conf{{/config/php-fpm.conf}} . /opt/app/htdocs/
{{/folder}}
{{/htdocs}}
{{#config/nginx.conf}}
COPY --link --chmod=a+rX config/nginx.conf /opt/etc/nginx.conf
{{/config/nginx.conf}}
{{#config/php.ini}}
COPY --link --chmod=a+rX config/php.ini /opt/etc/php.ini
{{/config/php.ini}}
{{#config/php-fpm.conf}}
COPY --link --chmod=a+rX config/php-fpm.conf /opt/etc/php-fpm.conf
{{/config/php-fpm.conf}}
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
