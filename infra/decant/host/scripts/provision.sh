#!/usr/bin/env bash
# Prepares a Debian 13 machine: packages, users, nginx, the program that puts releases live. Runs as root, from a folder
# that holds it and its files, as often as one likes: what is already so stays untouched.
#
#   provision.sh STACK LOGIN_USER HARDEN(true|false) DIGEST
set -euo pipefail
stack=$1 login=$2 harden=$3 digest=$4
here=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=packages.sh
source "$here/scripts/packages.sh"

# ---------------------------------------------------------------- what would go wrong is said before anything changes

belongs_to=$(cat $state/stack 2>/dev/null || true)
if [[ -n $belongs_to && $belongs_to != "$stack" ]]; then
    fail "this machine already serves stack $belongs_to, not $stack." \
        "Take it off that stack first: pulumi destroy --stack $belongs_to (or use another machine)."
fi

# Our own nginx holds port 80 after the first time; anybody else there would lose its visitors to us.
if ! [[ -e /etc/decant/nginx.conf ]] || ! systemctl is-active --quiet nginx; then
    for port in 80 443; do
        # /proc, because the machine may not have `ss` yet. Column 2 is address:port in hexadecimal, 0A means listening.
        inodes=$(cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | awk -v port="$(printf ':%04X' $port)" \
            '$4 == "0A" && substr($2, length($2) - 4) == port { print $10 }')
        for inode in $inodes; do
            program=$(find /proc/[0-9]*/fd -lname "socket:\[$inode\]" 2>/dev/null | head -n 1 || true)
            name=$(cat "${program%/fd/*}/comm" 2>/dev/null || echo 'another program')
            fail "port $port is held by $name, and nginx needs it." \
                "Find it: ss -ltnp 'sport = :$port'. Stop and disable it (systemctl disable --now NAME), then run pulumi up again."
        done
    done
fi

free=$(df --output=avail -m /var | tail -n 1 | tr -d ' ')
if ((free < 300)); then
    fail "the disk is full: ${free} MB are free under /var, 300 MB are needed." \
        "See what fills it: du -xh / | sort -h | tail. Make room, then run pulumi up again."
fi

# ---------------------------------------------------------------- files, before packages so that nginx starts with them

changed_units=no changed_nginx=no

# put MODE SOURCE TARGET: install a file if it differs; true when it did.
put() {
    if cmp -s "$2" "$3" && [[ $(stat -c %a "$3") == "${1#0}" ]]; then return 1; fi
    mkdir -p "$(dirname "$3")"
    install -m "$1" "$2" "$3.decant-new"
    mv "$3.decant-new" "$3"
}

put_unit() { if put 0644 "$1" "$2"; then changed_units=yes; fi; }

if [[ ! -e $state/stack ]]; then
    for taken in app@.service release@.service; do
        [[ ! -e /etc/systemd/system/$taken ]] ||
            fail "there is a unit $taken already that is not Decant's." "Rename it, then run pulumi up again."
    done
    for taken in decant decant-build; do
        ! getent passwd $taken >/dev/null ||
            fail "there is a user $taken already that is not Decant's." "Rename or remove it, then run pulumi up again."
    done
fi

mkdir -p $state /etc/decant
[[ $belongs_to == "$stack" ]] || printf '%s\n' "$stack" >$state/stack
put 0644 "$here/settings.json" /etc/decant/settings.json || true
put 0755 "$here/scripts/decant-host.sh" /opt/decant/bin/decant-host || true
put 0755 "$here/scripts/remove.sh" /opt/decant/bin/decant-remove || true
put 0755 "$here/scripts/packages.sh" /opt/decant/bin/decant-packages || true
for file in "$here"/decant_host/*.py; do put 0644 "$file" "/opt/decant/python/decant_host/${file##*/}" || true; done
for file in "$here"/gunicorn/*.py; do put 0644 "$file" "/opt/decant/python/${file##*/}" || true; done
put 0644 "$here/gunicorn/gunicorn-requirements.txt" /opt/decant/gunicorn-requirements.txt || true
put_unit "$here/systemd/app@.service" /etc/systemd/system/app@.service
put_unit "$here/systemd/release@.service" /etc/systemd/system/release@.service
put_unit "$here/systemd/sandbox.conf" /etc/systemd/system/app@.service.d/sandbox.conf
put_unit "$here/systemd/sandbox.conf" /etc/systemd/system/release@.service.d/sandbox.conf
put_unit "$here/systemd/decant-boot.service" /etc/systemd/system/decant-boot.service
put_unit "$here/systemd/nginx.conf" /etc/systemd/system/nginx.service.d/decant.conf

# reload_units: systemd knows them only now. (Also before nginx is installed, which would start without our part.)
reload_units() {
    if [[ $changed_units == yes ]]; then systemctl daemon-reload; fi
    changed_units=no
}
reload_units

candidate=/etc/decant/nginx.conf.candidate
cp "$here/nginx.conf" $candidate
# A machine without IPv6 cannot listen on it.
[[ -e /proc/net/if_inet6 ]] || sed -i '/listen \[::\]/d' $candidate

# ---------------------------------------------------------------- packages and uv

tools=(python3 python3-pip-whl ca-certificates) # what installs uv, which takes as long as all other packages
packages=(nginx iproute2)
[[ $harden == true ]] && packages+=(nftables)

install_uv() {
    local wheels output
    wheels=(/usr/share/python-wheels/pip-*.whl)
    rm -rf /opt/decant/{uv.new,pip}
    # pip out of its wheel: the package that brings a whole pip brings a compiler's worth of others. Unpacked, because
    # Python keeps nothing of what it compiles out of an archive, which takes twice as long.
    mkdir /opt/decant/pip
    python3 -P -m zipfile -e "${wheels[0]}" /opt/decant/pip
    output=$(PYTHONPATH=/opt/decant/pip python3 -P -m pip --no-cache-dir --disable-pip-version-check install --quiet --no-deps --no-compile \
        --require-hashes --only-binary :all: --root-user-action ignore --target /opt/decant/uv.new \
        -r "$here/scripts/uv-requirements.txt" 2>&1) ||
        fail "uv could not be installed: $(tail -n 4 <<<"$output")" "Can the machine reach its Python package index?"
    rm -rf /opt/decant/{uv,pip}
    mv /opt/decant/uv.new /opt/decant/uv
    put 0644 "$here/scripts/uv-requirements.txt" /opt/decant/uv-requirements.txt || true
}

[[ -e $state/nginx-was-enabled ]] || systemctl is-enabled nginx >$state/nginx-was-enabled 2>/dev/null || true
install_packages "${tools[@]}"
uv_job=
if ! cmp -s "$here/scripts/uv-requirements.txt" /opt/decant/uv-requirements.txt || ! [[ -x /opt/decant/uv/bin/uv ]]; then
    install_uv &
    uv_job=$!
fi
install_packages "${packages[@]}"
[[ -z $uv_job ]] || wait "$uv_job"
rm -rf $downloads

put 0644 "$here/apt/apt-upgrades.conf" /etc/apt/apt.conf.d/52decant-upgrades || true

# ---------------------------------------------------------------- users and folders

add_user() {
    getent passwd "$1" >/dev/null && return
    useradd --system --user-group --home-dir "$2" --no-create-home --shell /usr/sbin/nologin "$1"
    echo "$1" >>$state/users-added
}
add_user decant $state/data
add_user decant-build /var/cache/decant
# nginx reaches the app's socket and its static files through the app's group.
if ! id -nG www-data | grep -qw decant; then
    gpasswd --add www-data decant >/dev/null
    changed_nginx=yes
fi
chmod 0755 $state
install -d -m 0755 -o root -g root $state/releases $state/venvs /var/cache/decant
install -d -m 0700 -o "$login" $state/incoming

# ---------------------------------------------------------------- sshd and firewall, where they are ours to set

sshd_file=/etc/ssh/sshd_config.d/00-decant.conf
reload_ssh() { systemctl try-reload-or-restart ssh.service 2>/dev/null || systemctl try-reload-or-restart sshd.service; }
if [[ $harden == true ]]; then
    if [[ $login == root ]]; then sed -i '/^PermitRootLogin/s/no$/prohibit-password/' "$here/sshd/sshd.conf"; fi
    if put 0644 "$here/sshd/sshd.conf" $sshd_file; then
        mkdir -p /run/sshd
        if ! output=$(/usr/sbin/sshd -t 2>&1); then
            rm -f $sshd_file
            fail "sshd would not take its new settings: $output" "Mend /etc/ssh/sshd_config, or: pulumi config set decant:harden false"
        fi
        reload_ssh
    fi
    # sshd's own word on where it listens: port 22 is a habit, and a wrong guess would lock everybody out.
    mkdir -p /run/sshd
    ports=$(/usr/sbin/sshd -T | awk '$1 == "listenaddress" { sub(/.*:/, "", $2); print $2 }' | sort -un | paste -sd, | sed 's/,/, /g')
    [[ -n $ports ]] || fail "sshd does not say at which port it listens." "Try on the machine: sshd -T"
    sed -i "s/dport { 22, 80 }/dport { $ports, 80 }/" "$here/nftables/firewall.nft"
    put_unit "$here/systemd/decant-firewall.service" /etc/systemd/system/decant-firewall.service
    if put 0600 "$here/nftables/firewall.nft" /etc/decant/firewall.nft || ! systemctl is-active --quiet decant-firewall; then
        /usr/sbin/nft --check -f /etc/decant/firewall.nft
        reload_units
        systemctl enable --quiet --no-reload decant-firewall
        systemctl restart decant-firewall
    fi
else
    if [[ -e $sshd_file ]]; then
        rm -f $sshd_file
        reload_ssh
    fi
    if [[ -e /etc/systemd/system/decant-firewall.service ]]; then
        systemctl disable --quiet --now decant-firewall
        rm -f /etc/systemd/system/decant-firewall.service /etc/decant/firewall.nft
        changed_units=yes
    fi
fi

# ---------------------------------------------------------------- services

reload_units
for unit in decant-boot nginx; do # asked first: enabling what is enabled takes long
    systemctl is-enabled --quiet $unit || systemctl enable --quiet --no-reload $unit
done

if ! cmp -s $candidate /etc/decant/nginx.conf; then
    if ! output=$(nginx -t -q -c $candidate 2>&1); then
        fail "nginx refuses the new site, so the old one stays: $output" "This is a fault of Decant: please report it with this text."
    fi
    cp $candidate /etc/decant/nginx.conf.new
    mv /etc/decant/nginx.conf.new /etc/decant/nginx.conf
    changed_nginx=yes
fi
rm -f $candidate
if ! systemctl is-active --quiet nginx; then
    systemctl restart nginx || fail "nginx does not start: $(journalctl -u nginx -n 5 -o cat --no-pager)" "See: journalctl -u nginx"
elif [[ $changed_nginx == yes ]]; then
    systemctl reload nginx
fi

# The nonce makes the rollout ask the URL again after any change here.
printf '{"base": "%s", "nginx": "%s", "nonce": "%s"}\n' "$digest" "$(nginx -v 2>&1 | sed 's|.*/||; s| .*||')" \
    "$(od -An -N8 -tx8 /dev/urandom | tr -d ' ')"
