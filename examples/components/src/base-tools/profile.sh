export PATH=/srv/bin:$PATH
