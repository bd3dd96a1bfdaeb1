#!/bin/sh
# Finish the uninstall that /var/lib/appliance/change records. POSIX sh; it needs no Python, no network and no free disk.
#
# Usage: sh /opt/appliance/uninstall [PREFIX]
#
# `appliance uninstall` writes this file and the record, and starts it. After a power cut appliance-recover.service starts it
# again, or a person does. Each step may run again; the record and this file go last. No link is followed.
#
# Exit codes: 0 done, 2 nothing is being uninstalled here, 8 a step failed: run it again.
set -u
LC_ALL=C
PATH=/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH

root=${1:-}
root=${root%/}
case $root in
/* | '') ;;
*) echo "uninstall: $root is no absolute path" >&2; exit 2 ;;
esac
opt=$root/opt/appliance
state=$root/var/lib/appliance
gateway=$root/var/lib/appliance-gateway
etc=$root/etc/appliance
run=$root/run/appliance
units=/etc/systemd/system
record=$state/change
STEPS="services links units programs users state configuration sockets record"

purge=no
op=
if [ -f "$record" ] && [ ! -L "$record" ]; then
    while IFS='=' read -r name value; do
        case $name in
        op) op=$value ;;
        purge) purge=$value ;;
        esac
    done <"$record"
    if [ "$op" != uninstall ]; then
        echo "uninstall: $record records no uninstall; run: appliance uninstall" >&2
        exit 2
    fi
elif [ -e "$opt/current" ] || [ -e "$opt/releases" ]; then
    echo "uninstall: $record records no uninstall; run: appliance uninstall" >&2
    exit 2
else
    STEPS=record
fi

# Remove files and folders, also where an ordinary user may not write a folder of their own.
remove() {
    rm -rf -- "$@" 2>/dev/null && return 0
    for path in "$@"; do
        [ -d "$path" ] && [ ! -L "$path" ] && chmod -R u+rwX -- "$path"
        rm -rf -- "$path"
    done
}

# Everything in a folder but the names that follow.
remove_but() {
    folder=$1
    shift
    [ -d "$folder" ] && [ ! -L "$folder" ] || return 0
    for path in "$folder"/* "$folder"/.[!.]*; do
        [ -e "$path" ] || [ -L "$path" ] || continue
        is_kept=no
        for kept in "$@"; do
            [ "${path##*/}" = "$kept" ] && is_kept=yes
        done
        [ "$is_kept" = yes ] || remove "$path"
    done
}

# The units of this host, in the order in which they are stopped: the watch of a trial before what it watches, and the socket
# before the gateway, which it would start again. The unit that finishes an uninstall at boot comes last, by itself.
unit_names() {
    for path in "$units"/appliance-scrub.timer "$units"/appliance-scrub.service \
        "$units"/appliance-trial.service "$units"/appliance-return.service "$units"/appliance-gateway.socket \
        "$units"/appliance-gateway.service "$units"/appliance-engine@*.service "$units"/appliance-egress.service; do
        [ -e "$path" ] && echo "${path##*/}"
    done
    return 0
}

is_running() {
    [ -d /run/systemd/system ]
}

forget_unit() {
    # systemd notes beside the units when a timer last ran.
    rm -f -- "$units/$1" "/var/lib/systemd/timers/stamp-$1"
    for wanted in "$units"/*.wants/"$1"; do
        [ -L "$wanted" ] && rm -f -- "$wanted"
    done
    return 0
}

step_services() {
    [ -z "$root" ] && is_running || return 0
    for unit in $(unit_names); do
        systemctl disable --quiet -- "$unit" 2>/dev/null || true
        systemctl stop -- "$unit"
        systemctl reset-failed -- "$unit" 2>/dev/null || true
    done
    # The counter of packets stays in the kernel when its unit ends.
    if command -v nft >/dev/null && nft list table inet appliance_egress >/dev/null 2>&1; then
        nft delete table inet appliance_egress
    fi
}

step_links() {
    rm -f -- "$opt/current" "$opt/previous"
}

step_units() {
    [ -z "$root" ] || return 0
    for unit in $(unit_names); do
        forget_unit "$unit"
    done
    if is_running; then
        systemctl daemon-reload
    fi
}

step_programs() {
    if [ -z "$root" ] && grep -q /opt/appliance/current/ /usr/local/bin/appliance 2>/dev/null; then
        rm -f -- /usr/local/bin/appliance
    fi
    [ -d "$opt" ] || return 0
    for path in "$opt"/* "$opt"/.[!.]*; do
        # The programs that finish an interrupted change lie beside this one, and go with it.
        if [ -d "$path" ] || [ -L "$path" ]; then
            remove "$path"
        fi
    done
}

step_users() {
    [ -z "$root" ] || return 0
    for user in appliance-engine appliance-gateway; do
        if grep -q "^$user:[^:]*:[0-9]*:[0-9]*:Service of the appliance:" /etc/passwd; then
            userdel -- "$user"
        fi
    done
    group=$(sed -n 's/^appliance:[^:]*:\([0-9]\{1,3\}\):.*/\1/p' /etc/group)
    # A group that is the first one of somebody else stays.
    if [ -n "$group" ] && ! cut -d: -f4 /etc/passwd | grep -q -x "$group"; then
        groupdel appliance
    fi
}

step_state() {
    # Incidents and scrubs speak of models that are gone.
    remove "$root/var/lib/appliance-engine"
    if [ "$purge" = yes ]; then
        # The lock goes in the last step: until then no other command changes this host.
        remove_but "$state" change journal
        remove "$gateway"
        return 0
    fi
    remove_but "$state" change state-format trust audit journal access.db access.db-wal access.db-shm access.db-journal
    # The number of a group that is gone may be given to another one.
    if [ -z "$root" ] && [ -e "$state/access.db" ]; then
        chown root:root "$state"/access.db*
        chmod 600 "$state"/access.db*
    fi
    if [ -z "$root" ] && [ -d "$gateway" ] && [ ! -L "$gateway" ]; then
        chown -hR root:root "$gateway"
        chmod 700 "$gateway"
    fi
}

step_configuration() {
    if [ "$purge" = yes ]; then
        remove "$etc"
    else
        remove "$etc/return" "$etc/.reserve"
        # The number of a user who is gone may be given to another one. A site's own key may have any name.
        if [ -z "$root" ] && [ -d "$etc/tls" ] && [ ! -L "$etc/tls" ]; then
            find "$etc/tls" -xdev '(' -name '*.key' -o -nouser ')' -exec chown -h root:root {} +
        fi
    fi
}

step_sockets() {
    remove "$run"
    if [ -z "$root" ]; then
        remove /run/appliance-egress
    else
        # On a whole machine systemd keeps the logs, with those of other programs.
        remove "$root/var/log/appliance"
    fi
}

step_record() {
    sync
    if [ -z "$root" ] && [ -e "$units/appliance-recover.service" ]; then
        forget_unit appliance-recover.service
        if is_running; then
            systemctl daemon-reload
        fi
    fi
    remove_but "$opt" uninstall
    if [ "$purge" = yes ]; then
        remove "$state/journal"
    fi
    rm -f -- "$record"
    rmdir -- "$etc" "$state" 2>/dev/null || true
    # Whoever has the lock of a new journal may install: what is not ours stays.
    rm -f -- "$opt/uninstall"
    rmdir -- "$opt" 2>/dev/null || true
    # Below a prefix the folders above are ours as well, as far as they are empty.
    if [ -n "$root" ]; then
        rmdir -- "$root/opt" "$root/var/lib" "$root/var/log" "$root/var" "$root/etc" "$root/run" 2>/dev/null || true
    fi
}

for step in $STEPS; do
    # A step ends at its first command that fails.
    (
        set -e
        "step_$step"
    )
    status=$?
    if [ "$status" -ne 0 ]; then
        echo "uninstall: the step '$step' failed; mend what stands above, then run: sh $opt/uninstall $root" >&2
        exit 8
    fi
done
