#!/bin/sh
# Changes how visitors come into HAProxy, without a restart, so that no connection is lost.
# usage: balancer-entrance certificate NAME (its PEM on standard input) | balancer-entrance set HOST|- NAME...
set -eu
dir=/etc/haproxy/certificates
list=$dir/list
map=/etc/haproxy/redirect.map

# What is known to go well: nothing, or that something was made.
ask() {
    said=$(printf '%s\n' "$1" | socat -t 10 - UNIX-CONNECT:/run/haproxy/admin.sock | grep -v '^$' || true)
    case $said in
    '' | *Success* | 'New empty certificate store'* | 'Transaction created'* | *' deleted'*) ;;
    *) printf '%s: %s\n' "$(printf '%s' "$1" | head -n 1)" "$said" >&2 && exit 1 ;;
    esac
}

case $1 in
certificate)
    if [ -e "$dir/$2" ]; then exit 0; fi
    umask 077
    cat >"$dir/$2.new"
    ask "new ssl cert $dir/$2"
    ask "set ssl cert $dir/$2 <<
$(cat "$dir/$2.new")
"
    ask "commit ssl cert $dir/$2"
    mv "$dir/$2.new" "$dir/$2"
    ;;
set)
    host=$2
    shift 2
    for name in "$@"; do
        if ! grep -qxF "$dir/$name" $list; then
            ask "add ssl crt-list $list $dir/$name"
            echo "$dir/$name" >>$list
        fi
    done
    # Those of the list that are not wanted any more.
    cp $list $list.before
    while read -r path; do
        case " $* " in *" ${path##*/} "*) continue ;; esac
        ask "del ssl crt-list $list $path"
        ask "del ssl cert $path"
        rm "$path"
        sed -i "\|^$path\$|d" $list
    done <$list.before
    ask "clear map $map"
    : >$map
    if [ "$host" != - ]; then
        ask "add map $map to $host"
        echo "to $host" >$map
    fi
    ;;
esac
