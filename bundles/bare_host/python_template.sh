# shellcheck shell=sh disable=SC1091,SC2015,SC2016,SC2086,SC2154
# Part 2, for a host without python3: root installs it from the stick
end() { echo "REFUSED: $2" >&2; exit "$1"; }
[ "$(id -u)" = 0 ] || end 6 "no python3; root has to run this"
export PATH=/usr/sbin:/usr/bin:/sbin:/bin; umask 022
o=$(. /etc/os-release && echo "os-packages/$ID-$VERSION_ID/")
grep -F "  $o" python3.sha256 >list || end 6 "it has no python3 for $o"
p=$(mktemp -d /var/tmp/python3.XXXXXX) || end 1 "no /var/tmp"
while read -r h f; do f="$p/${f##*/}"
  head -c 99999999 "${b%BOOT}blobs/sha256/$h" >"$f" || end 5 "stick 1?"
  echo "$h  $f"; done <list >sums
sha256sum -c sums >/dev/null 2>&1 || end 3 "a package differs"
for f in "$p"/*; do n=$(dpkg-deb -f "$f" Package)
  v=$(dpkg-deb -f "$f" Version) s='${db:Status-Abbrev}${Version}'
  case $(dpkg-query -Wf "$s" "$n" 2>/dev/null) in ii*)
    s=$(dpkg-query -Wf '${Version}' "$n")
    dpkg --compare-versions "$s" ge "$v" && rm "$f" ;; esac; done
DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-remove \
  --no-install-recommends -o Dir::Etc::SourceList=/dev/null \
  -o Dir::Etc::SourceParts=/dev/null -o APT::Sandbox::User=root \
  install "$p"/* </dev/null >&2 || end 6 "apt-get"
rm -r "$p"; python3 -V >&2 || exit 6; cd "$OLDPWD" && python3 -I -B \
  $d/verify.pyz "$@" --trust $d/root.json --pin "$K"; exit
