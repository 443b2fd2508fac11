. /srv/lib/greet.sh
greet api
