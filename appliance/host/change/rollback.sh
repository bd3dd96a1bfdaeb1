#!/bin/sh
# Goes back to another installed release of this host. It needs no Python, no Ansible, no network and no free disk.
#
#   rollback [RELEASE]   a person goes back: to RELEASE, or to the one that served before
#   rollback --return    a release on trial has failed: the one before serves again
#   rollback --recover   at boot: a change that was cut off is finished or undone
#
# Rules:
# - everything that can be refused is refused before the first write: a release that newer metadata do not allow (REVOKED),
#   one that is incomplete, and one that does not read the stored state of this host (STATE, state-format);
# - var/lib/appliance/change names the change before anything is switched, and goes last. The journal informs people;
# - every wait has a limit, and nothing waits for the release that is left;
# - values of files are compared and never executed.
set -u
export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin
umask 077
limit=300

root=$(CDPATH='' cd -P -- "$(dirname -- "$0")/../.." && pwd) || exit 1
[ "$root" != / ] || root=
option=${root:+ --prefix $root} # for commands in hints
opt=$root/opt/appliance state=$root/var/lib/appliance etc=$root/etc/appliance run=$root/run/appliance
units=$root/etc/systemd/system gateway=appliance-gateway.service
has_units='' has_systemd=''
[ -n "$root" ] || has_units=yes
[ -z "$has_units" ] || [ ! -d /run/systemd/system ] || has_systemd=yes
cd / || exit 1

# --- what is reported

fail() { # CODE-OF-EXIT SUBJECT HEADING EXPECTED FOUND HINT
  printf 'error: %s: %s\n  expected %s\n  found %s\nhint: %s\n' "$2" "$3" "$4" "$5" "$6" >&2
  exit "$1"
}

note() { # STEP STATE RELEASE TEXT: a line for people; a full disk loses it
  lines=$state/journal/install.jsonl
  [ ! -L "$lines" ] || return 0
  # After the torn line of an interrupted run, this one begins on a line of its own.
  torn='%s'
  [ ! -s "$lines" ] || [ -z "$(tail -c 1 "$lines")" ] || torn='\n%s'
  line="{\"time\": \"$(date -u +%Y-%m-%dT%H:%M:%SZ)\", \"release\": \"$3\", \"step\": \"$1\", \"state\": \"$2\","
  # shellcheck disable=SC2059 # one of the two formats above
  { printf "$torn" "$line \"note\": \"$4\"}
" >>"$lines"; } 2>/dev/null || true
}

installed() { # the complete releases, for a hint
  for ok in "$opt"/releases/*/RELEASE.ok; do
    [ ! -f "$ok" ] || { ok=${ok%/RELEASE.ok} && printf ' %s' "${ok##*/}"; }
  done
}

nowhere() { # no release is named, and none served before
  others=
  for one in $(installed); do
    [ "$one" = "$left" ] || others="$others $one"
  done
  hint="name one: appliance rollback RELEASE$option"
  [ -n "$others" ] || hint='a newer release comes on its stick; nothing else is here'
  fail 2 "${root:-/}" 'no release to go back to (rollback.nowhere)' 'a release before this one' "${others:- none}" "$hint"
}

# --- what is read

name_of() { # LINK: the release that it names; empty for another link, or none
  to=$(readlink "$opt/$1" 2>/dev/null) || to=
  case $to in
    releases/*) to=${to#releases/} && ! is_name "$to" || printf '%s' "$to" ;;
  esac
}

is_name() { # VERSION-DIGITS
  case $1 in
    [!A-Za-z0-9]* | *[!A-Za-z0-9._+-]*) return 1 ;;
    *-????????????) ;;
    *) return 1 ;;
  esac
  case ${1##*-} in
    *[!0-9a-f]* | '') return 1 ;;
  esac
  digits=${1##*-} && [ "${#digits}" -eq 12 ]
}

read_change() { # sets op, release, before and phase; 1 where there is no change, 2 where the file is not one
  op='' release='' before='' phase='' names='format op release before phase since boots purge note'
  [ -f "$state/change" ] && [ ! -L "$state/change" ] || return 1
  while IFS='' read -r line; do
    name=${line%%=*} value=${line#*=}
    [ -n "$name" ] && [ "$name" = "${names%% *}" ] || return 2
    names=${names#"$name"} && names=${names# }
    case $line in
      *=*[!A-Za-z0-9._:+-]*) return 2 ;;
      format=1) ;;
      op=*) op=$value ;;
      release=*) release=$value ;;
      before=*) before=$value ;;
      phase=*) phase=$value ;;
      since=[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]T[0-9][0-9]:[0-9][0-9]:[0-9][0-9]Z) ;;
      boots=*[!0-9]* | boots= | boots=???????*) return 2 ;;
      boots=* | purge=yes | purge=no | note=*) ;;
      *) return 2 ;;
    esac
  done <"$state/change"
  [ -z "$names" ] || return 2
  [ -z "$release" ] || is_name "$release" || return 2
  [ -z "$before" ] || is_name "$before" || return 2
  case $op:$phase in
    install:switching | install:trying | install:committing | rollback:switching) [ -n "$release" ] || return 2 ;;
    uninstall:removing | restore:restoring) ;;
    *) return 2 ;;
  esac
}

unit_names() { # RELEASE PATTERN: the names of its units that the pattern fits
  for unit in "$opt/releases/$1"/config/units/$2; do
    [ ! -f "$unit" ] || printf ' %s' "${unit##*/}"
  done
}

saved_of() { # RELEASE: the folder with what was rendered into it before the last change of it; empty where there is none
  [ ! -f "$etc/return/$1/complete" ] || printf '%s' "$etc/return/$1/release"
}

# --- what is refused

check_release() { # RELEASE: ends with the reason where this host cannot go back to it
  at=$opt/releases/$1
  if [ -e "$opt/current" ] && [ ! -L "$opt/current" ]; then
    fail 9 "$opt/current" 'not a link (release.current)' 'a link into releases/' 'something else, as after a copy' \
      'move it away, then run the same command again'
  fi
  if ! is_name "$1" || [ -L "$at" ] || [ ! -d "$at" ]; then
    fail 2 "$1" 'no such release (rollback.unknown)' "one of$(installed)" 'another name' 'choose one of these'
  fi
  if [ -e "$at/REVOKED" ] || [ -L "$at/REVOKED" ]; then
    fail 4 "$1" 'revoked (release.revoked)' 'a release that the newest metadata allow' 'the mark REVOKED' \
      'install the newest release from its stick; it never becomes valid again'
  fi
  missing=$(missing_of "$1")
  if [ -n "$missing" ]; then
    hint='install it again from its stick'
    [ ! -f "$at/RELEASE.staged" ] || hint="it is staged, and never served: appliance switch $1$option"
    fail 9 "$1" 'incomplete (release.incomplete)' 'a finished install' "no $missing" "$hint"
  fi
  have=1 reads=1
  [ ! -f "$state/state-format" ] || read -r have <"$state/state-format" || have=
  [ ! -f "$at/STATE" ] || reads=$(sed -n 's/^reads=\([0-9:]*\)$/\1/p' "$at/STATE")
  case :$reads: in
    *:"${have:-unreadable}":*) ;;
    *) fail 6 "$1" 'does not read the stored state of this host (state.unread)' "format ${reads:-unknown}" \
      "format ${have:-unreadable}, which a later release has written" \
      'go back to a later release, or install a newer one from its stick' ;;
  esac
}

missing_of() { # RELEASE: the first file that it cannot serve without, where it is not there
  at=$opt/releases/$1 saved=$(saved_of "$1")
  for file in RELEASE.ok venv/bin/python; do
    [ -f "$at/$file" ] || { printf '%s' "$file" && return; }
  done
  for file in RELEASE.json config/gateway.json; do
    [ -f "${saved:-$at}/$file" ] || { printf '%s' "$file" && return; }
  done
  for file in "${saved:-$at}"/config/engine-*.json; do
    model=$(sed -n 's/.*"store": *"\([^"]*\)".*/\1/p' "$file" 2>/dev/null)
    [ -f "${model:-$file/none}" ] || { printf '%s' "${model:-config/engine-*.json}" && return; }
  done
}

check_tree() {
  if [ ! -w "$opt" ] || [ ! -w "$state" ] || [ ! -w "$etc" ]; then
    fail 1 "${root:-/}" 'not writable (rollback.rights)' 'its owner, and a file system that is mounted for writing' \
      "user $(id -un 2>/dev/null || id -u)" 'run it as root, or as the owner of the prefix'
  fi
  # Whoever holds this lock changes the host. Its children hold it, too.
  lock=$state/journal/lock tries=5
  { true >>"$lock"; } 2>/dev/null || fail 1 "$lock" 'no lock (rollback.rights)' 'a file' 'none' 'run it as root'
  exec 9>>"$lock"
  until flock -n 9; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || fail 75 "$lock" 'another install runs (install.busy)' 'no other change of this host' \
      "process $(head -n 1 "$lock" 2>/dev/null)" 'wait until it has finished, then run the same command again'
    sleep 1
  done
  { echo $$ >"$lock"; } 2>/dev/null || true
}

# --- what is written; each file appears as a whole

make_room() { # blocks that are kept for this moment
  rm -f "$state/.reserve" "$etc/.reserve"
}

write_change() { # OP RELEASE BEFORE PHASE
  for again in '' yes; do
    [ -z "$again" ] || make_room
    rm -f "$state/.change.partial"
    {
      printf 'format=1\nop=%s\nrelease=%s\nbefore=%s\nphase=%s\nsince=%s\nboots=0\npurge=no\nnote=\n' "$1" "$2" "$3" "$4" \
        "$(date -u +%Y-%m-%dT%H:%M:%SZ)" >"$state/.change.partial"
    } 2>/dev/null && sync -f "$state/.change.partial" && mv -f "$state/.change.partial" "$state/change" &&
      sync -f "$state" && return 0
  done
  rm -f "$state/.change.partial"
  fail 1 "$state" 'the disk is full (disk.full)' 'a few hundred free bytes' 'none' "appliance gc$option, then the same again"
}

put() { # SOURCE TARGET: copy a small file; where nothing is free, by a second name of the same file
  part=${2%/*}/.${2##*/}.partial
  # What a kill left of a new file: nothing signed names it, and a release with it would not be opened.
  rm -f "$part"
  cmp -s "$1" "$2" && return 0
  changed="$changed ${2##*/}"
  if ! cp "$1" "$part" 2>/dev/null; then
    make_room
    rm -f "$part"
    cp "$1" "$part" 2>/dev/null || { rm -f "$part" && ln "$1" "$part"; } || return 1
  fi
  chmod 644 "$part" && sync -f "$part" && mv -f "$part" "$2"
}

put_saved() { # RELEASE: what was rendered into its folder, as it was before a change of it began
  saved=$(saved_of "$1") at=$opt/releases/$1
  [ -n "$saved" ] || return 0
  for file in RELEASE.json site.yaml config/gateway.json config/engine-*.json config/egress.nft config/units/*; do
    for there in "$saved"/$file; do
      [ ! -f "$there" ] || put "$there" "$at/${there#"$saved"/}" || return 1
    done
    for here in "$at"/$file; do
      [ ! -f "$here" ] || [ -f "$saved/${here#"$at"/}" ] || rm -f "$here"
    done
  done
}

put_site() { # RELEASE
  from=$opt/releases/$1/site.yaml
  [ -f "$from" ] || return 0 # the first versions kept no copy
  # A change that nobody has applied is kept beside it.
  if [ -z "$kept" ] && [ -f "$etc/site.yaml" ] && ! cmp -s "$from" "$etc/site.yaml" &&
    ! cmp -s "$opt/releases/$left/site.yaml" "$etc/site.yaml"; then
    ln -f "$etc/site.yaml" "$etc/site.yaml.replaced" && echo "kept your changes: $etc/site.yaml.replaced" >&2
  fi
  kept=yes
  put "$from" "$etc/site.yaml"
}

put_units() { # RELEASE
  [ -n "$has_units" ] || return 0
  for unit in "$opt/releases/$1"/config/units/*; do
    [ ! -f "$unit" ] || put "$unit" "$units/${unit##*/}" || return 1
  done
}

point() { # LINK RELEASE: one rename
  [ "$(readlink "$opt/$1" 2>/dev/null)" != "releases/$2" ] || return 0
  rm -f "$opt/.$1.partial"
  if ln -s "releases/$2" "$opt/.$1.partial" 2>/dev/null; then
    mv -fT "$opt/.$1.partial" "$opt/$1" || return 1
  else
    # Not even a link fits on this disk: the one that an install has left there takes the name.
    [ "$1" = current ] && [ "$(readlink "$opt/previous")" = "releases/$2" ] && mv -fT "$opt/previous" "$opt/$1" ||
      return 1
  fi
  sync -f "$opt"
}

switch_to() { # RELEASE: its files are in place, and current names it
  put_saved "$1" && put_site "$1" && put_units "$1" && point current "$1"
}

# --- what runs

seconds() { # since boot: a clock that nobody sets
  read -r up _ </proc/uptime && printf '%s' "${up%%.*}"
}

call() { # systemctl, for as long as is left
  rest=$((until - $(seconds)))
  [ "$rest" -gt 0 ] || return 1
  timeout -k 5 "$rest" systemctl "$@" </dev/null >/dev/null 2>&1
}

others_of() { # RELEASE OTHER: the units of OTHER that RELEASE does not have
  mine="$(unit_names "$1" '*') "
  [ "$1" != "$2" ] && [ -n "$2" ] || return 0
  for unit in $(unit_names "$2" '*'); do
    case $mine in
      *" $unit "*) ;;
      *) printf ' %s' "$unit" ;;
    esac
  done
}

# shellcheck disable=SC2086 # names of units are words, without blanks and signs
drop_units() { # UNIT…: of the release that is left
  [ $# -gt 0 ] || return 0
  call disable "$@"
  # The engines give their memory back, and nobody waits for them. The port has to be free before another gateway starts.
  call --no-block stop "$@"
  for unit in "$@"; do
    case $unit in
      *.socket) call stop "$unit" && rm -f "$units/$unit" ;;
    esac
  done
}

start_socket() { # UNIT: systemd starts no socket whose service runs
  case " $changed " in
    *" $1 "*) ;;
    *) ! is_active "$1" || return 0 ;;
  esac
  call stop $gateway && call restart "$1"
}

# shellcheck disable=SC2046,SC2086
start_units() { # RELEASE LEFT: ends with 1 where users do not reach RELEASE within the limit
  [ -n "$has_systemd" ] || return 0
  until=$(($(seconds) + limit)) others=$(others_of "$1" "$2")
  engines=$(unit_names "$1" 'appliance-engine@*') sockets=$(unit_names "$1" '*.socket')
  timers=$(unit_names "$1" '*.timer')
  call daemon-reload || return 1
  call --no-block stop appliance-trial.service
  # A watch that has ended with a failure has done its work.
  call reset-failed appliance-trial.service
  # Until the other gateway answers, this one asks users to come again.
  { true >"$run/window"; } 2>/dev/null
  drop_units $others
  call enable $engines $sockets $timers $gateway || return 1
  [ -z "$timers" ] || call start $timers
  call reset-failed $engines $sockets $gateway
  for unit in $engines; do
    # What an engine has left there would look like a running one.
    { [ "$1" != "$2" ] && is_active "$unit"; } || rm -f "$(socket_of "$unit")"
  done
  if [ "$1" = "$2" ]; then call restart $engines; else call start $engines; fi
  for unit in $sockets; do
    start_socket "$unit" || return 1
  done
  # The gateway reports that it is ready when the release is verified and users can connect.
  call restart $gateway || return 1
  while ! { is_active $gateway && is_listening $engines; }; do
    rest=$((until - $(seconds)))
    { [ "$rest" -gt 0 ] && is_coming $engines $gateway; } || return 1
    sleep 0.2
  done
}

socket_of() { # ENGINE: where it listens, once its model is verified
  at=${1#appliance-engine@}
  printf '%s' "$run/${at%.service}/engine.sock"
}

is_listening() { # whether one of these engines does
  for unit in "$@"; do
    if [ -e "$(socket_of "$unit")" ] && is_active "$unit"; then return 0; fi
  done
  return 1
}

is_active() { # whether one of these units runs
  call is-active --quiet "$@"
}

is_coming() { # whether none of these units has failed for good
  ! call is-failed --quiet "$@"
}

# shellcheck disable=SC2046,SC2086
queue_units() { # RELEASE LEFT: at boot nothing is waited for; systemd starts what belongs to RELEASE
  [ -n "$has_systemd" ] || return 0
  until=$(($(seconds) + limit)) others=$(others_of "$1" "$2")
  own="$(unit_names "$1" 'appliance-engine@*')$(unit_names "$1" '*.socket')$(unit_names "$1" '*.timer') $gateway"
  drop_units $others
  call daemon-reload
  call enable $own
  call --no-block start $own
}

end_change() { # RELEASE LEFT: RELEASE is good
  if [ "$(name_of previous)" = "$1" ]; then rm -f "$opt/previous"; fi
  rm -f "$run/window" "$run/trial-${2##*-}" "$state/change"
  sync -f "$state"
}

# --- the commands

roll_back() { # [RELEASE]
  check_tree
  left=$(name_of current) target=${1:-}
  wanted=$(name_of previous) trial='' trial_phase='' trial_before=''
  if read_change; then
    case $op:$phase in
      install:switching | install:trying) wanted=${before:-$wanted} ;;
    esac
    case $op:$phase in
      install:trying | install:committing) trial=$release trial_phase=$phase trial_before=$before ;;
    esac
  fi
  [ $# -gt 0 ] || target=$wanted
  [ $# -gt 0 ] || [ -n "$target" ] || nowhere
  check_release "$target"
  if [ "$target" = "$left" ] && [ ! -e "$state/change" ]; then
    echo "$target serves already" && exit 0
  fi
  # Only its commit makes it good: that pins the root, and ends what served before.
  if [ -n "$trial" ] && [ "$trial" = "$left" ] && [ "$target" = "$left" ]; then
    echo "$target serves already, and is on trial" && exit 0
  fi
  trap '' HUP INT TERM
  write_change rollback "$target" "$left" switching
  note rollback started "$target" "from ${left:-none}"
  if switch_to "$target" && start_units "$target" "$left"; then
    end_change "$target" "$left"
    [ -z "$left" ] || [ "$left" = "$target" ] || point previous "$left"
    note rollback 'done' "$target" "from ${left:-none}"
    echo "$target serves; ${left:-nothing} served before"
    exit 0
  fi
  note rollback failed "$target" 'rollback.failed'
  hint="journalctl -b -u $gateway, then appliance status$option"
  if [ -n "$left" ] && [ "$left" != "$target" ] && switch_to "$left" && start_units "$left" "$target"; then
    if [ -n "$trial" ] && [ "$trial" = "$left" ]; then
      # It is as good as it was: its trial goes on, and a failure of it still has a way back.
      write_change install "$left" "$trial_before" "$trial_phase"
      rm -f "$run/window" "$run/trial-${target##*-}"
      [ -z "$has_systemd" ] || timeout 10 systemctl --no-block restart appliance-trial.service
    else
      end_change "$left" "$target"
    fi
    fail 7 "$target" 'users did not reach it (rollback.failed)' "an answer within $limit s" \
      "none; $left serves again" "$hint"
  fi
  fail 8 "$target" 'users do not reach it (rollback.broken)' "an answer within $limit s" \
    "none, and ${left:-no other release} does not serve either" "$hint"
}

# shellcheck disable=SC2046 # names of units are words
leave_nothing() { # the first install of this host was cut off while it switched: nothing serves
  until=$(($(seconds) + limit))
  [ -z "$has_systemd" ] || call disable $(unit_names "$release" '*')
  rm -f "$opt/current"
  end_change '' "$release"
  note return 'done' "$release" 'none served before'
  exit 0
}

go_back() { # WAY: undo the change that was read; WAY starts the units
  left=$release
  [ -n "$before" ] || fail 8 "$release" 'no release to return to (return.nowhere)' 'a release before it' 'none' \
    'install again from the stick'
  (check_release "$before") || { note return failed "$release" "$before cannot serve" && exit 8; }
  trap '' HUP INT TERM
  note return started "$before" "from $release"
  if switch_to "$before" && "$1" "$before" "$release"; then
    end_change "$before" "$release"
    note return 'done' "$before" "from $release"
    echo "$before serves again instead of $release" && exit 0
  fi
  note return failed "$before" 'return.failed'
  fail 8 "$before" 'users do not reach it (return.failed)' "an answer within $limit s" \
    "none, and $release had failed before" "journalctl -b -u $gateway, then appliance status"
}

return_before() {
  [ "${1:-}" = --locked ] || check_tree
  read_change || exit 0
  # From the commit on, nothing goes back by itself.
  case $op:$phase in
    install:switching | install:trying) go_back start_units ;;
  esac
}

recover() {
  [ -e "$state/change" ] || exit 0
  # An uninstall is finished by a script of its own: the lock and most of the tree may be gone.
  if [ -f "$opt/uninstall" ] && [ ! -L "$opt/uninstall" ] && grep -q -x op=uninstall "$state/change"; then
    exec /bin/sh "$opt/uninstall" "$root"
  fi
  [ "${1:-}" = --locked ] || check_tree
  read_change || fail 8 "$state/change" 'not the record of a change (change.damaged)' 'its nine lines' 'something else' \
    'appliance status, then install or go back again: that replaces it'
  case $op:$phase in
    install:trying) [ "$(name_of current)" = "$release" ] || go_back queue_units ;;
    install:committing) ;; # the watch finishes it
    install:switching)
      [ -n "$before" ] || leave_nothing
      go_back queue_units
      ;;
    rollback:*)
      # A person wanted it, and it was checked before it began.
      if ! (check_release "$release"); then go_back queue_units; fi
      left=$before
      switch_to "$release" && queue_units "$release" "$before" || exit 8
      end_change "$release" "$before"
      [ -z "$before" ] || [ "$before" = "$release" ] || point previous "$before"
      note rollback 'done' "$release" "from ${before:-none}, finished at boot"
      ;;
    uninstall:*)
      fail 8 "$op" 'was cut off (change.open)' "$opt/uninstall" 'none' 'appliance uninstall, or install from a stick'
      ;;
    *)
      program=$opt/current/venv/bin/python
      [ -x "$program" ] || fail 8 "$op" 'was cut off (change.open)' "$program" 'none' "appliance $op, once more"
      exec 9>&- && exec "$program" -I -B -m appliance.cli.main "$op" --resume ${root:+--prefix "$root"}
      ;;
  esac
}

changed='' kept='' left=''
case ${1:-} in
  --return) shift && return_before "$@" ;;
  --recover) shift && recover "$@" ;;
  -h | --help) sed -n 's/^# \{0,1\}//; 2,6p' "$0" ;;
  --) shift && roll_back "$@" ;;
  -*) fail 2 "$1" 'no such option (rollback.option)' 'rollback [RELEASE]' "$1" "sh $0 --help" ;;
  *) [ $# -le 1 ] || fail 2 "$2" 'one word too many' 'rollback [RELEASE]' "$*" "sh $0 --help" && roll_back "$@" ;;
esac
