# Installs the packages and wheels of /work into a fresh environment, as a host does, and imports what they bring.
# $1: the Python. Ends with 80 where there is none.
set -eu
if [ -d /work/packages ]; then
    sh /work/packages.sh >&2
fi
command -v "python$1" >/dev/null || exit 80
"python$1" -I -m venv --without-pip --symlinks /tmp/venv >&2
set -- /tmp/venv/bin/python
export UV_CACHE_DIR=/tmp/uv UV_CONCURRENT_BUILDS=1
/work/uv pip sync --no-config --offline --no-index --require-hashes --no-build --find-links /work/wheels \
    --link-mode copy --no-progress --quiet --no-python-downloads --python "$1" /work/requirements.txt >&2
/work/uv pip check --no-config --offline --no-python-downloads --quiet --python "$1" >&2
cd /tmp
"$1" -I /work/imports.py >/work/answer.json
