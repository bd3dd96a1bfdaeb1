# Installs the packages of /work as a host does, and runs the trial of a model's engine.
set -eu
if [ -d /work/packages ]; then
    sh /work/packages.sh >&2
fi
cd /tmp
exec python3 -I /work/engine.py
