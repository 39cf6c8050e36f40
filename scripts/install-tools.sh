#!/usr/bin/env bash
# Fetch what the embedded clouds need beside Python into one folder, without root: install-tools.sh DIR
#
#   Azurite, osls (deploys to AWS)     from npm, pinned by package-lock.json
#   prometheus, promtool               from PATH, else from the Debian/Ubuntu package, unpacked into DIR
#
# Everything ends up in DIR/bin. Doing it again is quick.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dir=${1:?usage: install-tools.sh DIR}
mkdir -p "$dir/bin"
dir=$(cd "$dir" && pwd)

say() { printf 'opportune: %s\n' "$*" >&2; }

# --- Azurite -----------------------------------------------------------------------------------------------------
node_ok() { node -e 'process.exit(Number(process.versions.node.split(".")[0]) >= 18 ? 0 : 1)' 2>/dev/null; }
if ! node_ok || ! command -v npm >/dev/null; then
    say "Node.js 18 or newer with npm was not found; Azurite (local Azure storage) runs on it."
    say "Install it (apt-get install nodejs npm, brew install node, or nodejs.org), then: make install"
    exit 1
fi
if ! cmp -s "$here/package-lock.json" "$dir/node/package-lock.json" || [[ ! -f $dir/node/.complete ]]; then
    say "installing $(node -p "Object.entries(require('$here/package.json').dependencies).map(d => d.join(' ')).join(', ')") into $dir"
    mkdir -p "$dir/node"
    rm -f "$dir/node/.complete"
    cp "$here/package.json" "$here/package-lock.json" "$dir/node/"
    (cd "$dir/node" && npm ci --omit=dev --ignore-scripts --no-audit --no-fund --loglevel=error >&2)
    touch "$dir/node/.complete"
fi
ln -sf ../node/node_modules/.bin/azurite "$dir/bin/azurite"
ln -sf ../node/node_modules/.bin/osls "$dir/bin/osls"

# --- Prometheus --------------------------------------------------------------------------------------------------
link() { # link NAME: DIR/bin/NAME -> the one found on PATH
    local found
    found=$(command -v "$1") && ln -sf "$found" "$dir/bin/$1"
}
have() { [[ -x $dir/bin/prometheus && -x $dir/bin/promtool ]]; }

link_all() {
    link prometheus && link promtool
}

unpack_debian() {
    command -v apt-get >/dev/null && command -v dpkg >/dev/null || return 1
    local work=$dir/debian
    local own_lists=(-o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work/cache" -o APT::Sandbox::User=)
    mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/root"
    say "unpacking Debian's prometheus into $dir"
    (
        cd "$work"
        rm -f ./*.deb
        apt-get -qq download prometheus 2>/dev/null || {
            # The machine's package lists are missing or stale, and without root only lists of our own can be fetched.
            apt-get -qq "${own_lists[@]}" update
            apt-get -qq "${own_lists[@]}" download prometheus
        }
        for package in ./*.deb; do dpkg -x "$package" root; done
        rm -rf ./*.deb lists cache
    ) >&2 || return 1
    ln -sf ../debian/root/usr/bin/prometheus "$dir/bin/prometheus"
    ln -sf ../debian/root/usr/bin/promtool "$dir/bin/promtool"
}

if ! have && ! link_all && ! unpack_debian; then
    say "prometheus and promtool were not found on PATH, and no Debian package could be fetched."
    say "Install them (brew install prometheus, or prometheus.io/download), put them on PATH, then: make install"
    exit 1
fi
have || { say "$dir/bin lacks prometheus or promtool; remove $dir and try again"; exit 1; }
say "ready: azurite, osls, prometheus, promtool in $dir/bin"
