#!/usr/bin/env bash
# Removes from a machine what provision.sh and the releases put there, and nothing else. Runs as root; may run again.
set -uo pipefail
export DEBIAN_FRONTEND=noninteractive LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
state=/var/lib/decant
manifest=/opt/decant/manifest

# A host that was renamed in `decant:hosts` is set up under its new name before the clean-up of the old one runs. It keeps
# everything then, its data above all.
if [[ -n ${1:-} && $1 != inside ]]; then
    tag=$(sed -n 's/.*"machine": *"\([^"]*\)".*/\1/p' /etc/decant/settings.json 2>/dev/null)
    if [[ -n $tag && ${tag%.*} != "$1" ]]; then
        echo '{"removed": false}'
        exit 0
    fi
fi

# From a copy and in a unit of its own: this file is among those that go, and the connection may break meanwhile.
if [[ ${1:-} != inside ]]; then
    copy=$(mktemp /run/decant-remove.XXXXXX)
    cp "$0" "$copy"
    systemd-run --wait --pipe --collect --quiet --unit=decant-remove bash "$copy" inside
    status=$?
    rm -f "$copy"
    exit $status
fi

# Both are removed at the end, $state first: what is cut short before can be run again.
if [[ ! -d $state ]]; then
    rm -rf /opt/decant
    exit 0
fi
# An installation of packages that is under way ends first, and has then recorded them.
exec 9>/run/decant-packages.lock
flock --wait 1600 9
rm -f /run/decant-packages.lock /run/decant-provision.lock

# Out of the load balancer first, where there is one. A machine that was never finished has no such program.
[[ ! -x /opt/decant/bin/decant-host ]] || /opt/decant/bin/decant-host drain >/dev/null 2>&1
# The services that timers have started would be retried for ever. (Not decant-*: this script runs in such a unit.)
systemctl stop 'decant-*.timer' 'decant-revert-*.service' 'decant-unclaimed-*.service' decant-certificate 2>/dev/null
systemctl disable --quiet --now decant-boot decant-firewall decant-certificate.timer 2>/dev/null
systemctl stop 'app@*.service' 'release@*.service' 'decant-run-*.service' 2>/dev/null
systemctl reset-failed 'app@*.service' 'release@*.service' 'decant-*' 2>/dev/null
systemctl stop nginx 2>/dev/null
grep -qx enabled $state/nginx-was-enabled 2>/dev/null || systemctl disable --quiet nginx 2>/dev/null

# `.before` is there when an upgrade was cut short.
changed_sshd=no
while read -r _ on_change _ path _; do
    [[ $path != /opt/decant/* ]] || continue
    # A drop-in folder goes only if nobody else has put something into it.
    [[ $on_change != reload-sshd || ! -e $path ]] || changed_sshd=yes
    rm -f "$path"
    [[ $path != *.service.d/* ]] || rmdir "$(dirname "$path")" 2>/dev/null
done < <(cat $manifest $manifest.before 2>/dev/null)
systemctl daemon-reload
if [[ $changed_sshd == yes ]]; then
    # As in provision.sh: an sshd that systemd listens for does not survive a reload.
    verb=try-reload-or-restart
    if systemctl is-active --quiet ssh.socket; then verb=try-restart; fi
    systemctl $verb ssh.service 2>/dev/null || systemctl $verb sshd.service 2>/dev/null
fi

# A machine that lost power inside dpkg removes nothing until this has run. A package that was only half unpacked then stays
# as it is, hence force-remove-reinstreq below.
dpkg --force-confold --configure -a </dev/null >/dev/null 2>&1

# The packages that came with Decant, except those that something installed since depends on.
if [[ -s $state/packages-added ]]; then
    purgeable() { apt-get -qq -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= --simulate purge "$@" 2>/dev/null | awk '$1 == "Purg" || $1 == "Remv" { print $2 }' | sort -u; }
    mapfile -t ours < <(comm -12 <(sort -u $state/packages-added) <(dpkg-query -W -f '${Package}\n' | sort -u))
    if ((${#ours[@]})) && [[ -n $(comm -13 <(printf '%s\n' "${ours[@]}" | sort) <(purgeable "${ours[@]}")) ]]; then
        alone=()
        for package in "${ours[@]}"; do
            [[ -z $(comm -13 <(printf '%s\n' "${ours[@]}" | sort) <(purgeable "$package")) ]] && alone+=("$package")
        done
        ours=("${alone[@]}")
    fi
    if ((${#ours[@]})); then
        # The package's own removal leaves its process running.
        [[ " ${ours[*]} " != *" unattended-upgrades "* ]] || systemctl stop unattended-upgrades 2>/dev/null
        timeout 900 apt-get -qq -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-remove-reinstreq \
            -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= purge "${ours[@]}" </dev/null >/run/decant-purge.log 2>&1 || {
            echo "$(hostname): could not remove all of: ${ours[*]}" >&2
            tail -n 5 /run/decant-purge.log >&2
            echo "  Mend that on the machine (apt-get purge ${ours[*]}), then run the same command again." >&2
            exit 1
        }
        rm -f /run/decant-purge.log
    fi
    # What the packages' own removal leaves behind: logs, compiled Python, empty folders. Never a file of somebody else.
    for package in "${ours[@]}"; do
        case $package in
            nginx-common)
                rm -f /var/log/nginx/{access,error}.log* /var/www/html/index.nginx-debian.html
                rmdir /var/log/nginx /var/lib/nginx/* /var/lib/nginx /var/www/html /var/www 2>/dev/null
                ;;
            unattended-upgrades)
                rm -f /var/log/unattended-upgrades/unattended-upgrades*.log* /run/unattended-upgrades.lock
                rmdir /var/log/unattended-upgrades 2>/dev/null
                ;;
            logrotate) rm -f /var/lib/systemd/timers/stamp-logrotate.timer ;;
            python3-minimal)
                for folder in /usr/lib/python3 /usr/lib/python3.* /usr/local/lib/python3.* /etc/python3 /etc/python3.*; do
                    [[ -d $folder ]] || continue
                    find "$folder" -name __pycache__ -prune -exec rm -rf {} +
                    find "$folder" -depth -type d -empty -delete
                done
                ;;
        esac
    done
fi
if [[ -e $state/package-tools-files ]]; then
    # Backups that dpkg's helpers made of their own databases.
    comm -13 $state/package-tools-files <(find /var/lib/ucf /var/cache/debconf -type f 2>/dev/null | sort) |
        grep -E '^/var/lib/ucf/(hashfile|registry)\.[0-9]$|^/var/cache/debconf/[a-z]+\.dat-old$' |
        while read -r file; do rm -f "$file"; done
    rmdir /var/cache/debconf/tmp.ci 2>/dev/null
fi
if [[ $(cat $state/apt-lists 2>/dev/null) == made ]]; then
    find /var/lib/apt/lists -maxdepth 1 -type f -not -name lock -delete
    rmdir /var/lib/apt/lists/auxfiles 2>/dev/null
fi

gpasswd --delete www-data decant >/dev/null 2>&1
while read -r user; do
    userdel "$user" 2>/dev/null
    groupdel "$user" 2>/dev/null
done < <(cat $state/users-added 2>/dev/null)
rm -rf /etc/decant /run/decant /var/cache/decant /var/cache/decant-apt
rm -rf $state
rm -rf /opt/decant
echo '{"removed": true}'
