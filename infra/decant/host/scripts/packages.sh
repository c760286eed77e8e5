#!/usr/bin/env bash
# Installs Debian packages that are missing, and records which ones it added, so that remove.sh can remove them.
#
#   packages.sh NAME...
set -euo pipefail
umask 022
export DEBIAN_FRONTEND=noninteractive LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

state=/var/lib/decant
downloads=/var/cache/decant-apt
lists=/var/lib/apt/lists
lock_wait=300  # seconds for another apt, such as that of the first boot
apt_seconds=1500 # seconds for everything that apt does here: a mirror that hangs must not hold the machine for hours
silence=20       # seconds that a mirror may say nothing; apt tries four times
waited=0         # seconds that locks of others took, which are nobody's fault
update_error=    # why the package lists could not be read, where that is so
told=            # the one that was told as a warning

fail() {
    printf '%s: %s\n' "$(hostname)" "$1" >&2
    shift
    printf '  %s\n' "$@" >&2
    exit 1
}

installed() { dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' 2>/dev/null | awk '$1 == "ii" { print $2 }' | sort -u; }

# missing_of PACKAGE...: those that are not installed.
missing_of() { comm -13 <(installed) <(printf '%s\n' "$@" | sort -u); }

# Pattern-Only: a name with a dot that no package has is not read as a regular expression. Error-Mode: without it, a mirror
# that does not answer is a warning. What is downloaded goes where it is removed afterwards. confold: a file that the owner
# has edited stays.
apt() {
    local left=$((apt_seconds + waited - SECONDS))
    timeout $((left > 0 ? left : 1)) apt-get -qq -o DPkg::Lock::Timeout=$lock_wait -o Dpkg::Use-Pty=0 \
        -o Dpkg::Options::=--force-confold -o Dir::Cache=$downloads -o Acquire::Languages=none \
        -o Acquire::http::Timeout=$silence -o Acquire::https::Timeout=$silence -o APT::Update::Error-Mode=any \
        -o APT::Cmd::Pattern-Only=true "$@" </dev/null
}

fail_if_late() {
    ((SECONDS < apt_seconds + waited)) ||
        fail "installing packages was given up after $((SECONDS / 60)) minutes." \
            "Does the machine's package mirror answer? Try on it: apt-get update"
}

# fail_locked FILE: the kernel's list of locks names the process. Its columns: number, kind, kind, mode, process,
# device:inode, ...
fail_locked() {
    local lock=$1 process name
    process=$(awk -v inode="$(stat -c %i "$lock")" '{ sub(/.*:/, "", $6) } $6 == inode { print $5; exit }' /proc/locks)
    name=$(cat "/proc/$process/comm" 2>/dev/null || true)
    fail "${name:-another program}${name:+ (process $process)} has held the lock $lock for $((lock_wait / 60)) minutes." \
        "Wait until it has ended, or end it. Then run pulumi up again."
}

fail_if_locked() {
    case $1 in
        *'dpkg frontend lock'*) fail_locked /var/lib/dpkg/lock-frontend ;;
        *'Unable to lock the administration directory'*) fail_locked /var/lib/dpkg/lock ;;
    esac
}

# DPkg::Lock::Timeout does not cover the lock of the package lists: while another apt reads them, this script's apt fails at
# once. Any other failure may be that of a source that nothing here needs, so it stops nothing if the installation works.
update_lists() {
    local output began=$SECONDS
    update_error=
    until output=$(apt update 2>&1); do
        if [[ $output != *"$lists/lock"* ]]; then
            update_error=$(grep '^E:' <<<"$output" || cat <<<"$output")
            break
        fi
        ((SECONDS < began + lock_wait)) || fail_locked $lists/lock
        sleep 1
        waited=$((waited + 1))
    done
}

# advise VERB TEXT: set `advice`, by the text of a failure of apt.
advise() {
    case $2 in
        *'Could not resolve'* | *'Temporary failure resolving'*)
            advice='The machine cannot look up names. See on it: cat /etc/resolv.conf; apt-get update' ;;
        *'not valid yet'* | *'is expired'* | *'Not live until'*)
            advice='Is the clock of the machine right? See on it: timedatectl' ;;
        *'No space left'*) advice='The disk is full. See on it: df -h' ;;
        *'Read-only file system'*) advice="The machine's disk is mounted read-only, often after a disk error. See on it: dmesg" ;;
        *'Release file'* | *'is not signed'* | *NO_PUBKEY*)
            advice='Correct that entry in /etc/apt/sources.list or /etc/apt/sources.list.d, or remove it.' ;;
        *'Failed to fetch'* | *'Unable to connect'*)
            advice="The machine does not reach its package mirror. Try on it: apt-get update" ;;
        *) advice="Try on the machine: apt-get $1" ;;
    esac
}

# The cause of a failure of apt, by its text.
fail_of_apt() {
    local advice
    advise "$1" "$2"
    fail "apt-get $1 failed: $(tail -n 5 <<<"$2")" "$advice" "Then run pulumi up again."
}

# Lists that could not be updated are told where the installation works, too: what was installed may be old. That is what
# a mirror with a false signature, or one that is kept from answering, leads to.
warn_of_update() {
    local advice
    [[ -n $update_error && $update_error != "$told" ]] || return 0
    told=$update_error
    advise update "$update_error"
    printf '%s: warning: apt-get update failed, so packages may be older than their security updates: %s\n  %s\n' \
        "$(hostname)" "$(tail -n 5 <<<"$update_error")" "$advice" >&2
}

# apt passes what it is about to install to this hook right before it calls dpkg, so that an installation that is cut
# short is recorded, too. Lines are: name, old version or -, <, new version, file. (Asking apt with --simulate before
# takes longer than the installation itself.)
recorder="awk '\$2 == \"-\" && \$5 ~ /[.]deb\$/ { print \$1 }' >>$state/packages-added || true"

# debconf reads all of apt's lists to collect the packages' questions. That takes a second, and nobody is there to answer.
# The owner's own hooks in the same place stay.
without_questions() {
    local hooks
    hooks=$(apt-config dump --no-empty --format '%v%n' DPkg::Pre-Install-Pkgs)
    if [[ $hooks == '/usr/sbin/dpkg-preconfigure --apt || true' ]]; then echo '#clear DPkg::Pre-Install-Pkgs;'; fi
}

apt_install() {
    without_questions >$downloads/apt.conf
    apt --config-file=$downloads/apt.conf \
        -o DPkg::Pre-Install-Pkgs::="$recorder" -o DPkg::Tools::Options::awk::Version=2 \
        install ${half_unpacked[0]:+--reinstall} --no-install-recommends "$@" "${half_unpacked[@]}" 2>&1
}

# Packages that dpkg does not configure, because only a part of their files is there. apt has to unpack them again.
half_unpacked=()
find_half_unpacked() {
    mapfile -t half_unpacked < <(
        dpkg-query -W -f '${db:Status-Eflag} ${binary:Package}\n' | awk '$1 == "reinstreq" { print $2 }'
    )
}

# A machine that lost power inside dpkg refuses every installation until this has run.
finish_interrupted_dpkg() { dpkg --force-confold --configure -a </dev/null 2>&1; }

install_packages() {
    local missing output unfinished=
    mapfile -t missing < <(missing_of "$@")
    ((${#missing[@]})) || return 0
    exec 9>/run/decant-packages.lock # two instances would remove each other's downloads
    waited=$((waited - SECONDS))
    flock --wait $apt_seconds 9 || fail "another installation of packages does not end." "See: ps -ef | grep apt-get"
    waited=$((waited + SECONDS))
    if [[ ! -e $state/apt-lists ]]; then
        if compgen -G "$lists/*Packages*" >/dev/null; then echo kept; else echo made; fi >$state/apt-lists
    fi
    if [[ ! -e $state/package-tools-files ]]; then
        # Either folder may be missing, which is no reason to stop here.
        { find /var/lib/ucf /var/cache/debconf -type f 2>/dev/null || true; } | sort >$state/package-tools-files
    fi
    # apt trusts a package in this folder that has the right size: the folder is new, and root's.
    rm -rf $downloads/archives
    mkdir -p $downloads/archives/partial
    if ! [[ -n $(find $lists -maxdepth 1 -name '*Packages*' -mtime -1 -print -quit 2>/dev/null) ]]; then update_lists; fi
    output=$(apt_install "${missing[@]}") || {
        fail_if_late
        [[ -z $update_error ]] || fail_of_apt update "$update_error"
        if [[ $output == *"dpkg was interrupted"* ]]; then
            unfinished=$(finish_interrupted_dpkg) && unfinished=
            find_half_unpacked
        else
            fail_if_locked "$output"
            # Lists that looked fresh can name packages that the mirror has replaced since.
            update_lists
        fi
        output=$(apt_install "${missing[@]}") || {
            fail_if_late
            fail_if_locked "$output"
            [[ -z $update_error ]] || fail_of_apt update "$update_error"
            [[ -z $unfinished ]] ||
                fail "dpkg was interrupted here before, and cannot go on: $(tail -n 5 <<<"$unfinished")" \
                    "Try on the machine: dpkg --configure -a"
            fail_of_apt "install ${missing[*]}" "$output"
        }
    }
    half_unpacked=()
    warn_of_update
    # What apt has computed from its lists stays until the caller removes it: it saves the next call a second.
    rm -rf $downloads/archives
    flock --unlock 9
}

# provision.sh sources this file for its functions; on its own it is a command.
if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
    install_packages "$@"
    # Not while another instance downloads into it, which removes it afterwards.
    exec 9>/run/decant-packages.lock
    if flock --nonblock 9; then rm -rf $downloads; fi
fi
