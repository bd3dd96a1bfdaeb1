# shellcheck shell=sh disable=SC1083,SC2013,SC2015,SC2086
# Trust root {{ version }}: {{ threshold }} signatures, serial {{ serial }} or later. To use it:
# sh SHEET /media/stick    "REFUSED", exit 4: keep away from that stick
K='{{ fingerprints }}'
export LC_ALL=C PATH=/usr/bin:/bin; umask 077; n=0 m='{{ threshold }}' s='{{ serial }}'
no() { echo "REFUSED: $1" >&2; exit 4; }; trap 'exit 130' 1 2 15
take() { [ -f "$b/$1" ] && head -c 9999999 "$b/$1" >"$1"; }
d=$(mktemp -dp /dev/shm boot.XXXXXX) || exit 1; trap 'rm -r $d' 0
b=$(cd "${1:?}" && pwd)/BOOT && cd $d || exit 2; take BOOT.sha256 ||
  no "no BOOT"; for k in $K; do take $k.der && take $k.sig || continue
  [ "$(sha256sum <"$k.der")" = "$k  -" ] || no "key $k"
  openssl dgst -sha256 -keyform DER -verify "$k.der" -signature \
    "$k.sig" BOOT.sha256 >/dev/null 2>&1 && n=$((n + 1)); done
[ "$n" -ge "$m" ] || no "$n signatures, not $m"
grep -Evq '^[0-9a-f]{64}  [a-z0-9][a-z0-9.-]*$' BOOT.sha256 && no list
r=$(sed -n '1s/.*  serial-\([0-9]*\)$/\1/p' BOOT.sha256)
[ "$r" -ge "$s" ] 2>/dev/null || no "serial $r, not $s"
for x in $(cut -c67- BOOT.sha256); do
  [ -e "$x" ] || take "$x" || no "no $x"; done
sha256sum -c BOOT.sha256 >/dev/null 2>&1 || no "a file differs"
[ "$(ls -A "$b")" = "$(ls -A)" ] || no "a file too many"{{ keep }}
python3 -V >/dev/null && { cd "$OLDPWD" && python3 -I -B \
  $d/verify.pyz "$@" --trust $d/root.json{{ pin }}; exit; }; (exit 6)
