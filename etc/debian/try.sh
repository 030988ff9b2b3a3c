#!/bin/sh
# Tries the package in a Debian of its own (debootstrap, root): installs, starts, upgrades, removes, purges.
# try.sh PACKAGE.deb [CHROOT]; the chroot is kept for the next time when it is named.
set -eu

package=$(readlink -f "$1")
root=${2:-$(mktemp -d)}
[ -e "$root/usr" ] || debootstrap --variant=minbase --include=libstdc++6 bookworm "$root" > /dev/null
inside() { chroot "$root" "$@"; }
fail() { echo "FAILED: $*" >&2; exit 1; }
stop() { [ -z "${broker:-}" ] || inside leveretctl -q shutdown 2> /dev/null || true; umount "$root/proc" 2> /dev/null || true; }
trap stop EXIT
mount -t proc proc "$root/proc" 2> /dev/null || true
cp "$package" "$root/leveret.deb"

start() {
    chroot --userspec=leveret:leveret "$root" /usr/bin/leveret --amqp-listen 127.0.0.1:0 --http-listen none \
        --metrics-listen none 2> "$root/log" &
    broker=$!
    inside leveretctl -q await_startup -t 30 || { cat "$root/log"; fail "does not start"; }
}

inside dpkg -i /leveret.deb > /dev/null || fail "does not install"
[ "$(stat -c '%U %a' "$root/var/lib/leveret" 2> /dev/null | cut -d' ' -f2)" = 750 ] || fail "the data directory's rights"
inside getent passwd leveret > /dev/null || fail "no user"
inside leveretctl man /tmp/man
start
inside leveretctl -q add_vhost kept
[ "$(inside /usr/lib/leveret/bin/rabbitmqctl list_vhosts -s | tr '\n' ' ')" = "/ kept " ] || fail "rabbitmqctl"
inside leveretctl -q backup /var/lib/leveret/copy > /dev/null || fail "does not make a backup"
inside leveretctl -q delete_vhost kept
! inside leveretctl -q restore --replace /var/lib/leveret/copy 2> /dev/null || fail "restores under a running broker"
inside leveretctl -q shutdown
wait "$broker" || fail "does not stop cleanly"
# By root, for the broker's user.
inside leveretctl -q restore --replace /var/lib/leveret/copy > /dev/null || fail "does not restore"
[ -z "$(inside find /var/lib/leveret ! -user leveret)" ] || fail "a restore left files that the broker may not write"
echo "# mine" >> "$root/etc/leveret/leveret.toml"
inside dpkg -i /leveret.deb > /dev/null || fail "does not upgrade"
tail -1 "$root/etc/leveret/leveret.toml" | grep -q mine || fail "an upgrade overwrote the configuration"
start
inside leveretctl list_vhosts 2> /dev/null | grep -q kept || fail "an upgrade lost data"
inside leveretctl -q shutdown
wait "$broker"
broker=
inside dpkg -r leveret > /dev/null || fail "does not remove"
[ -d "$root/var/lib/leveret/db" ] || fail "a removal took the data"
inside dpkg -P leveret > /dev/null || fail "does not purge"
[ ! -e "$root/var/lib/leveret" ] || fail "a purge left the data"
[ ! -e "$root/etc/leveret" ] || fail "a purge left the configuration"
! inside getent passwd leveret > /dev/null || fail "a purge left the user"
[ -z "$(inside sh -c 'ls -d /usr/bin/leveret* /usr/lib/leveret /usr/share/man/man1/leveret* 2> /dev/null')" ] || fail "a purge left files"
echo "the package installs, starts, upgrades, removes and purges"
