#!/usr/bin/env bash
# Install what the service tests start themselves: Chromium, PostgreSQL, an SSH server, and
# faketime, which sets the clock of one program.
set -euo pipefail
need=()
command -v chromium >/dev/null || need+=(chromium)
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || need+=(postgresql)
[ -x /usr/sbin/sshd ] || need+=(openssh-server)
command -v ssh >/dev/null || need+=(openssh-client)
command -v faketime >/dev/null || need+=(faketime)
[ ${#need[@]} -eq 0 ] && exit 0
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || { echo "error: install ${need[*]} as root, then repeat"; exit 2; }
  as_root=(sudo)
fi
echo "Installing ${need[*]} from Debian's packages."
export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get -qq update
"${as_root[@]}" apt-get -qq install --no-install-recommends -y "${need[@]}" >/dev/null
