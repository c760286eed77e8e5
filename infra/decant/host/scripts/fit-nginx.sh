#!/usr/bin/env bash
# Takes out of a configuration what this machine's kernel or nginx does not know, or writes it in an older way.
#
#   fit-nginx.sh FILE
set -euo pipefail
file=$1

# A machine without IPv6 cannot listen on it.
[[ -e /proc/net/if_inet6 ]] || sed -i '/listen \[::\]/d' "$file"

built=$(nginx -V 2>&1)
version=$(sed -n 's|^nginx version: nginx/\([0-9.]*\).*|\1|p' <<<"$built")
openssl=$(sed -n 's|^built with OpenSSL \([0-9.]*\).*|\1|p' <<<"$built")

# older VERSION THAN: whether a version is older than another one.
older() { [[ $1 != "$2" && $(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1) == "$1" ]]; }

# The directive http2 exists since nginx 1.25.1; before, it is a parameter of listen.
if older "$version" 1.25.1; then
    sed -i 's/^\( *listen .* ssl[^;]*\);/\1 http2;/; /^ *http2 on;/d' "$file"
fi
# A cache of the certificates that are read at handshakes exists since nginx 1.27.4.
if older "$version" 1.27.4; then sed -i '/^ *ssl_certificate_cache /d' "$file"; fi
# OpenSSL has the post-quantum key exchange since 3.5.
if older "$openssl" 3.5; then sed -i 's/X25519MLKEM768://' "$file"; fi
