#!/usr/bin/env bash
# Installs Debian packages that are missing, and remembers which came with Decant, to be taken away with it.
#
#   packages.sh NAME...
set -euo pipefail
umask 022
export DEBIAN_FRONTEND=noninteractive LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

state=/var/lib/decant
downloads=/var/cache/decant-apt

fail() {
    printf '%s: %s\n' "$(hostname)" "$1" >&2
    shift
    printf '  %s\n' "$@" >&2
    exit 1
}

installed() { dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' 2>/dev/null | awk '$1 == "ii" { print $2 }' | sort -u; }

# missing_of PACKAGE...: those that are not installed.
missing_of() { comm -13 <(installed) <(printf '%s\n' "$@" | sort -u); }

apt() {
    # Another apt, such as the first boot's own, is waited for. What is downloaded goes where it is cleaned up again.
    timeout 1200 apt-get -qq -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-confold \
        -o Dir::Cache=$downloads -o Acquire::Languages=none "$@" </dev/null
}

# apt tells what it is about to install right before it calls dpkg, so that an installation that is cut short is
# recorded, too. Lines are: name, old version or -, <, new version, file. (Asking with --simulate first would take longer
# than apt itself does.)
recorder="awk '\$2 == \"-\" && \$5 ~ /[.]deb\$/ { print \$1 }' >>$state/packages-added || true"

# debconf would read all of apt's lists for the questions of packages, which takes a second, and nobody is there to answer.
# What others have hung into the same place stays.
without_questions() {
    local hooks
    hooks=$(apt-config dump --no-empty --format '%v%n' DPkg::Pre-Install-Pkgs)
    if [[ $hooks == '/usr/sbin/dpkg-preconfigure --apt || true' ]]; then echo '#clear DPkg::Pre-Install-Pkgs;'; fi
}

apt_install() {
    without_questions >$downloads/apt.conf
    apt --config-file=$downloads/apt.conf \
        -o DPkg::Pre-Install-Pkgs::="$recorder" -o DPkg::Tools::Options::awk::Version=2 \
        install --no-install-recommends "$@" 2>&1
}

install_packages() {
    local missing output lists=/var/lib/apt/lists
    mapfile -t missing < <(missing_of "$@")
    ((${#missing[@]})) || return 0
    exec 9>/run/decant-packages.lock # two of us would clean up under each other
    flock 9
    if [[ ! -e $state/apt-lists ]]; then
        if compgen -G "$lists/*Packages*" >/dev/null; then echo kept; else echo made; fi >$state/apt-lists
    fi
    [[ -e $state/package-tools-files ]] ||
        find /var/lib/ucf /var/cache/debconf -type f 2>/dev/null | sort >$state/package-tools-files
    # apt trusts a package that lies here with the right size: the folder is new, and root's.
    rm -rf $downloads/archives
    mkdir -p $downloads/archives/partial
    if ! [[ -n $(find $lists -maxdepth 1 -name '*Packages*' -mtime -1 -print -quit 2>/dev/null) ]]; then
        apt update >/dev/null || fail "apt-get update failed." "Can the machine reach its package mirror? Try on it: apt-get update"
    fi
    output=$(apt_install "${missing[@]}") || {
        # Lists that looked fresh can name packages that the mirror has replaced since.
        apt update >/dev/null 2>&1 || true
        output=$(apt_install "${missing[@]}") ||
            fail "installing ${missing[*]} failed: $(tail -n 5 <<<"$output")" "Try on the machine: apt-get install ${missing[*]}"
    }
    rm -rf $downloads/archives # what apt has read out of its lists is worth a second to the next call; who called cleans up
    flock --unlock 9
}

# Else provision.sh reads it for what it defines.
if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
    install_packages "$@"
    rm -rf $downloads
fi
