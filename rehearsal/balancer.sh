#!/bin/sh
# Makes HAProxy send requests to these addresses alone, without a restart, so that no connection is lost.
# usage: balancer-targets set ADDRESS... | balancer-targets again (the same ones, when HAProxy has started)
set -eu
dir=/etc/haproxy

exec 9>/run/haproxy-targets.lock
flock 9

if [ "$1" = set ]; then
    shift
    for address in "$@"; do echo "$address"; done >$dir/targets
fi

# A command that works prints nothing, or that a server is new.
ask() {
    said=$(printf '%s\n' "$1" | socat -t 10 - UNIX-CONNECT:/run/haproxy/admin.sock | grep -v '^$' || true)
    case $said in '' | 'New server registered.') ;; *) printf '%s: %s\n' "$1" "$said" >&2 && exit 1 ;; esac
}
servers() {
    echo 'show servers state machines' | socat -t 10 - UNIX-CONNECT:/run/haproxy/admin.sock
}

known=$(servers | awk '$2 == "machines" { print $4 }')
active=$(servers | awk '$2 == "machines" && $7 == 0 { print $4 }')

while read -r address; do
    if ! echo "$known" | grep -qxF "$address"; then
        ask "add server machines/$address $address:80 $(cat $dir/server)"
        ask "enable health machines/$address"
    fi
    if ! echo "$active" | grep -qxF "$address"; then
        # HAProxy takes a server that becomes ready for healthy. So mark it as unhealthy while it is in the state
        # `drain`, in which it gets no requests; then the checks decide.
        ask "set server machines/$address state drain"
        ask "set server machines/$address health down"
        ask "set server machines/$address state ready"
    fi
done <$dir/targets

# Requests under way go on to their end; no new ones are sent.
for address in $active; do
    grep -qxF "$address" $dir/targets || ask "set server machines/$address state maint"
done
