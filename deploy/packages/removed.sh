#!/bin/sh
# /etc/lictor is kept where its files were changed; what the units wrote (consul.snapshot.path) goes with a purge alone.
set -e
[ ! -d /run/systemd/system ] || systemctl daemon-reload
[ "$1" != purge ] || rm -rf /var/lib/private/lictor /var/lib/lictor
