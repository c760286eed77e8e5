#!/usr/bin/env bash
# Prepares a Debian 13 machine: packages, users, nginx, and the program that puts releases live.
#
# Runs as root, from a folder that holds the files and their manifest (see manifest.py). It may run again at any time:
# what is already as it should be stays untouched.
#
#   provision.sh STACK LOGIN_USER HARDEN(true|false) DIGEST
set -euo pipefail
stack=$1 login=$2 harden=$3 digest=$4
here=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=packages.sh
source "$here/scripts/packages.sh"

# ---------------------------------------------------------------- checks, before anything changes

# Whether an nginx that Decant did not set up runs here, or would after the next boot. The first provisioning makes the one
# file early, and the other one late.
foreign_nginx() {
    if [[ -e $state/nginx-was-enabled || -e /etc/decant/nginx.conf ]]; then return 1; fi
    systemctl is-active --quiet nginx || systemctl is-enabled --quiet nginx
}

check_ports() {
    local port inodes inode program name
    for port in 80 443; do
        # From /proc, because the machine may not have `ss` yet. Column 2 is address:port in hexadecimal, 0A is LISTEN.
        inodes=$(cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | awk -v port="$(printf ':%04X' $port)" \
            '$4 == "0A" && substr($2, length($2) - 4) == port { print $10 }')
        for inode in $inodes; do
            program=$(find /proc/[0-9]*/fd -lname "socket:\[$inode\]" 2>/dev/null | head -n 1 || true)
            name=$(cat "${program%/fd/*}/comm" 2>/dev/null || echo 'another program')
            fail "port $port is held by $name, and nginx needs it." \
                "Find it: ss -ltnp 'sport = :$port'. Stop and disable it (systemctl disable --now NAME), then run pulumi up again."
        done
    done
}

belongs_to=$(cat $state/stack 2>/dev/null || true)
if [[ -n $belongs_to && $belongs_to != "$stack" ]]; then
    fail "this machine already serves stack $belongs_to, not $stack." \
        "Take it off that stack first: pulumi destroy --stack $belongs_to (or use another machine)."
fi

if ! [[ -e /etc/decant/nginx.conf ]] || ! systemctl is-active --quiet nginx; then check_ports; fi
if foreign_nginx; then
    fail "nginx is set up on this machine with a configuration of its own, which Decant would replace." \
        "Use another machine. Or, if its sites may go: systemctl disable --now nginx, then run pulumi up again."
fi

for folder in /var /usr /opt; do
    free=$(df --output=avail -m $folder | tail -n 1 | tr -d ' ')
    if ((free < 300)); then
        fail "the disk is full: ${free} MB are free under $folder, 300 MB are needed." \
            "See what fills it: du -xh / | sort -h | tail. Make room, then run pulumi up again."
    fi
done
for folder in /etc /opt /usr /var; do
    [[ -w $folder ]] || fail "$folder is read-only. Linux mounts a disk like that after a disk error: journalctl -k shows it." \
        "Repair the disk or replace the machine, then run pulumi up again."
done

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

# ---------------------------------------------------------------- files, before packages so that nginx starts with them

changed_units=no changed_nginx=no

# put MODE SOURCE PATH: install a file if it differs, and set `changed` then. (Not by its status: inside of a condition
# bash would go on after a failure.)
put() {
    if cmp -s "$2" "$3" && [[ $(stat -c %a "$3") == "${1#0}" ]]; then return; fi
    mkdir -p "$(dirname "$3")"
    install -m "$1" "$2" "$3.decant-new"
    mv "$3.decant-new" "$3"
    changed=yes
}

# install_files ON_CHANGE WHEN: the manifest's files of that kind; `changed` says whether any differed.
install_files() {
    local mode on_change when path source
    changed=no
    while read -r mode on_change when path source; do
        if [[ $on_change == "$1" && $when == "$2" ]]; then put "$mode" "$here/$source" "$path"; fi
    done <"$here/manifest"
}

# systemd must know the units before nginx is installed, which would otherwise start without our part.
install_units() {
    install_files reload-systemd "$1"
    if [[ $changed == yes ]]; then changed_units=yes; fi
}

reload_units() {
    if [[ $changed_units == yes ]]; then systemctl daemon-reload; fi
    changed_units=no
}

# Files of the manifest before that are in this one no more. The old manifest stays until they are gone.
manifest=/opt/decant/manifest
remember_manifest() {
    [[ ! -e $manifest.before ]] || return 0
    if [[ ! -e $manifest && -d /opt/decant/python ]]; then
        # A machine from before there was a manifest: of what moved since then, only Python modules.
        find /opt/decant/python -name '*.py' -printf '0644 nothing always %p -\n' >$manifest.before
    elif [[ -e $manifest ]] && ! cmp -s "$here/manifest" $manifest; then
        cp $manifest $manifest.before
    fi
}
remove_files_of_before() {
    local mode on_change when path source
    [[ -e $manifest.before ]] || return 0
    while read -r mode on_change when path source; do
        if ! awk '{ print $4 }' "$here/manifest" | grep -qxF "$path"; then rm -f "$path"; fi
        if [[ $on_change == reload-systemd ]]; then changed_units=yes; fi
    done <$manifest.before
    rm -f $manifest.before
}

mkdir -p $state /etc/decant
[[ $belongs_to == "$stack" ]] || printf '%s\n' "$stack" >$state/stack
remember_manifest
install_files nothing always
install_units always
remove_files_of_before
reload_units

# ---------------------------------------------------------------- packages and uv

tools=(python3 python3-pip-whl ca-certificates) # they install uv, which takes as long as all other packages
packages=(nginx iproute2)
[[ $harden == true ]] && packages+=(nftables)

install_uv() {
    local wheels output
    wheels=(/usr/share/python-wheels/pip-*.whl)
    rm -rf /opt/decant/{uv.new,pip}
    # pip out of its wheel: the package python3-pip depends on a compiler. Unpacked, because Python does not keep
    # compiled code for modules in an archive, which makes this take twice as long.
    mkdir /opt/decant/pip
    python3 -P -m zipfile -e "${wheels[0]}" /opt/decant/pip
    output=$(PYTHONPATH=/opt/decant/pip python3 -P -m pip --no-cache-dir --disable-pip-version-check install --quiet --no-deps --no-compile \
        --require-hashes --only-binary :all: --root-user-action ignore --target /opt/decant/uv.new \
        -r "$here/scripts/uv-requirements.txt" 2>&1) ||
        fail "uv could not be installed: $(tail -n 4 <<<"$output")" "Can the machine reach its Python package index?"
    rm -rf /opt/decant/{uv,pip}
    mv /opt/decant/uv.new /opt/decant/uv
    install_files install-uv always
}

# Whether this machine gets a certificate, and whether its own ACME client does that.
https=$(grep -q '"https": {' "$here/settings.json" && echo yes || echo no)
orders=$([[ $https == yes ]] && ! grep -q '"own": true' "$here/settings.json" && echo yes || echo no)

# The ACME client, in a virtual environment of its own. uv keeps no cache, which would be as large.
install_certbot() {
    local output venv=/opt/decant/certbot.new
    rm -rf $venv
    output=$({
        UV_NO_CACHE=1 /opt/decant/uv/bin/uv venv --quiet --python /usr/bin/python3 $venv &&
            UV_NO_CACHE=1 /opt/decant/uv/bin/uv pip install --quiet --no-deps --require-hashes --only-binary :all: \
                --python $venv/bin/python -r "$here/acme/certbot-requirements.txt"
    } 2>&1) || fail "the ACME client could not be installed: $(tail -n 4 <<<"$output")" \
        "Can the machine reach its Python package index?"
    # Its programs name the folder that they were installed in.
    sed -i "1s|$venv/|/opt/decant/certbot/|" $venv/bin/certbot
    rm -rf /opt/decant/certbot
    mv $venv /opt/decant/certbot
    install_files install-certbot orders
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
certbot_job=
if [[ $orders == no ]]; then
    rm -rf /opt/decant/certbot /opt/decant/certbot-requirements.txt
elif ! { cmp -s "$here/acme/certbot-requirements.txt" /opt/decant/certbot-requirements.txt &&
    /opt/decant/certbot/bin/python -c '' 2>/dev/null; }; then
    install_certbot &
    certbot_job=$!
fi

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
# nginx's workers read the certificate at each handshake, and the certificate authority's challenges.
install -d -m 0750 -o root -g www-data $state/tls
install -d -m 0700 -o root -g root $state/certbot
install -d -m 0755 -o root -g root $state/acme $state/acme/.well-known $state/acme/.well-known/acme-challenge

# ---------------------------------------------------------------- sshd and firewall, with decant:harden alone

sshd_file=/etc/ssh/sshd_config.d/00-decant.conf
# An sshd that systemd listens for (ssh.socket) cannot listen again after a reload, and ends ("Cannot bind any address").
reload_ssh() {
    local verb=try-reload-or-restart
    if systemctl is-active --quiet ssh.socket; then verb=try-restart; fi
    systemctl $verb ssh.service 2>/dev/null || systemctl $verb sshd.service
}

configured_ports() { /usr/sbin/sshd -T | awk '$1 == "listenaddress" { sub(/.*:/, "", $2); print $2 }' | sort -u; }

# Ports that sshd itself listens at and that are in its settings no more: a reload would close them.
ports_of_before() {
    if systemctl is-active --quiet ssh.socket; then return; fi
    ss -tlnpeH | awk '$1 == "LISTEN" && /"sshd"/ && !/ uid:/ { sub(/.*:/, "", $4); print $4 }' | sort -u | comm -23 - <(configured_ports)
}

keep_sshd() {
    if [[ -e $here/sshd.before ]]; then cp -p "$here/sshd.before" $sshd_file; else rm -f $sshd_file; fi
}

harden_sshd() {
    local output port
    if [[ $login == root ]]; then sed -i '/^PermitRootLogin/s/no$/prohibit-password/' "$here/sshd/sshd.conf"; fi
    [[ ! -e $sshd_file ]] || cp -p $sshd_file "$here/sshd.before" # the machine's first boot may have written one
    install_files reload-sshd harden
    [[ $changed == yes ]] || return 0
    if ! output=$(/usr/sbin/sshd -t 2>&1); then
        keep_sshd
        fail "sshd refuses its new settings, so the old ones stay: $output" \
            "Correct /etc/ssh/sshd_config, or: pulumi config set decant:harden false"
    fi
    port=$(ports_of_before | head -n 1)
    if [[ -n $port ]]; then
        keep_sshd
        fail "sshd listens at port $port, which its settings on the disk do not name any more: a reload would close it." \
            "Reload it yourself (systemctl reload ssh), and see that you can log in. Then tell Decant the new port, for example" \
            "pulumi config set --path 'decant:hosts[0].port' 2222, and run pulumi up again."
    fi
    reload_ssh
}

# Every port at which sshd lets somebody in. A port that is missing here would lock everybody out. sshd's own settings do
# not name it where systemd listens for it (ssh.socket); then the unit does, and so does a session that is open.
ssh_ports() {
    {
        /usr/sbin/sshd -T | awk '$1 == "listenaddress" { print $2 }'
        if systemctl is-active --quiet ssh.socket; then
            systemctl show --value --property=Listen ssh.socket | awk '/Stream/ { print $1 }'
        fi
        # Local addresses of sshd's sockets; those of sessions only where somebody listens at the port, too: a forwarded
        # connection has a port of its own. A process chooses its own name, so only root's sockets count: ss shows the
        # owner of any other.
        ss -tanpeH | awk '
            $1 == "LISTEN" { port = $4; sub(/.*:/, "", port); listening[port] = 1 }
            /"sshd/ && !/ uid:/ { ours[$4] = 1 }
            END { for (address in ours) { port = address; sub(/.*:/, "", port); if (port in listening) print address } }'
    } | sed -n 's/.*:\([0-9][0-9]*\)$/\1/p' | sort -un
}

start_firewall() {
    local ports
    ports=$(ssh_ports | paste -sd, | sed 's/,/, /g')
    [[ -n $ports ]] || fail "the port at which sshd listens is unknown." "Try on the machine: sshd -T; ss -ltnp"
    sed -i "s/dport { 22, 80, 443 }/dport { $ports, 80, 443 }/" "$here/nftables/firewall.nft"
    # Before it is installed: the next run would find the refused file unchanged and leave it to the next boot.
    /usr/sbin/nft --check -f "$here/nftables/firewall.nft"
    install_units harden
    install_files restart-firewall harden
    if [[ $changed == yes ]] || ! systemctl is-active --quiet decant-firewall; then
        reload_units
        systemctl enable --quiet --no-reload decant-firewall
        systemctl restart decant-firewall
    fi
}

# What an earlier `decant:harden true` installed.
take_hardening_back() {
    local mode on_change when path source
    if [[ -e /etc/systemd/system/decant-firewall.service ]]; then systemctl disable --quiet --now decant-firewall; fi
    while read -r mode on_change when path source; do
        if [[ $when != harden || ! -e $path ]]; then continue; fi
        rm -f "$path"
        case $on_change in
            reload-sshd) reload_ssh ;;
            reload-systemd) changed_units=yes ;;
        esac
    done <"$here/manifest"
}

if [[ $harden == true ]]; then
    mkdir -p /run/sshd # `sshd -t` and `-T` need it, and only a running sshd has made it
    harden_sshd
    start_firewall
else
    take_hardening_back
fi

# ---------------------------------------------------------------- services

reload_units
for unit in decant-boot nginx; do # asked first, because enabling an enabled unit takes long
    systemctl is-enabled --quiet $unit || systemctl enable --quiet --no-reload $unit
done

candidate=/etc/decant/nginx.conf.candidate
cp "$here/nginx.conf" $candidate
bash "$here/scripts/fit-nginx.sh" $candidate
if ! cmp -s $candidate /etc/decant/nginx.conf; then
    if ! output=$(nginx -t -q -c $candidate 2>&1); then
        rm -f $candidate
        fail "nginx refuses the new site, so the old one stays: $output" "This is a fault of Decant: please report it with this text."
    fi
    mv $candidate "$here/nginx.conf"
    install_files reload-nginx always
    changed_nginx=yes
fi
rm -f $candidate
if ! systemctl is-active --quiet nginx; then
    systemctl restart nginx || fail "nginx does not start: $(journalctl -u nginx -n 5 -o cat --no-pager)" "See: journalctl -u nginx"
elif [[ $changed_nginx == yes ]]; then
    systemctl reload nginx
fi

# After nginx, which answers the certificate authority.
[[ -z $certbot_job ]] || wait "$certbot_job"
if [[ $https == yes ]]; then
    systemctl is-active --quiet decant-certificate.timer || systemctl enable --quiet --now decant-certificate.timer
elif systemctl is-enabled --quiet decant-certificate.timer 2>/dev/null; then
    systemctl disable --quiet --now decant-certificate.timer
fi

# The nonce makes the rollout ask the URL again after any change here.
printf '{"provision": "%s", "nginx": "%s", "nonce": "%s"}\n' "$digest" "$(nginx -v 2>&1 | sed 's|.*/||; s| .*||')" \
    "$(od -An -N8 -tx8 /dev/urandom | tr -d ' ')"
