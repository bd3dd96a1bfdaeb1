# Installs the packages of /work/packages as a host does: by path, only those that are absent or older, from no source.
set -eu
set --
for deb in /work/packages/*.deb; do
    name=$(dpkg-deb -f "$deb" Package)
    version=$(dpkg-deb -f "$deb" Version)
    have=$(dpkg-query -W -f '${db:Status-Abbrev} ${Version}' "$name" 2>/dev/null || true)
    case $have in
        ii*) dpkg --compare-versions "${have##* }" ge "$version" && continue ;;
    esac
    set -- "$@" "$deb"
done
[ $# -gt 0 ] || exit 0
mkdir -p /tmp/apt/lists/partial /tmp/apt/archives/partial /tmp/apt/none
: >/tmp/apt/sources.list
exec apt-get install -y -q --no-remove --no-install-recommends \
    -o Dir::Etc::sourcelist=/tmp/apt/sources.list -o Dir::Etc::sourceparts=/tmp/apt/none \
    -o Dir::State::lists=/tmp/apt/lists -o Dir::Cache=/tmp/apt -o Dir::Cache::archives=/tmp/apt/archives \
    -o APT::Sandbox::User=root -o Dpkg::Use-Pty=0 "$@"
