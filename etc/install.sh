#!/bin/sh
# Puts the programs and what belongs to them below DESTDIR: install.sh BINARIES DESTDIR PREFIX. Used by `make install` and
# by the Debian package, so that both have the same files.
set -eu

binaries=$1 destdir=$2 prefix=$3
here=$(cd "$(dirname "$0")" && pwd)
put() { install -D -m "$1" "$2" "$destdir$3"; }

for program in leveret leveretctl leveretperf; do
    put 755 "$binaries/$program" "$prefix/bin/$program"
done

# The names of RabbitMQ's tools, in a folder of their own: beside RabbitMQ's package they would clash. Put it into PATH.
mkdir -p "$destdir$prefix/lib/leveret/bin"
for name in rabbitmqctl rabbitmq-diagnostics rabbitmq-queues rabbitmq-plugins rabbitmq-streams rabbitmq-upgrade; do
    ln -sf ../../../bin/leveretctl "$destdir$prefix/lib/leveret/bin/$name"
done

# RabbitMQ's own script (needs python3), for those whose programs call it.
put 755 "$here/../src/management/cli/rabbitmqadmin" "$prefix/lib/leveret/bin/rabbitmqadmin"

# Every setting, commented out: the file says what there is, and changes nothing.
settings=$(mktemp)
trap 'rm -f "$settings"' EXIT
sed 's/^\([a-z_]* = \)/# \1/' "$here/leveret.toml" > "$settings"
[ -e "$destdir/etc/leveret/leveret.toml" ] || put 644 "$settings" /etc/leveret/leveret.toml

unit=$(mktemp)
trap 'rm -f "$settings" "$unit"' EXIT
sed "s#/usr/bin/leveret#$prefix/bin/leveret#" "$here/systemd/leveret.service" > "$unit"
put 644 "$unit" "$prefix/lib/systemd/system/leveret.service"

manual=$destdir$prefix/share/man/man1
mkdir -p "$manual"
"$binaries/leveretctl" man "$manual"
gzip -9nf "$manual"/leveretctl*.1

completions() {
    mkdir -p "$(dirname "$destdir$prefix/share/$2")"
    "$binaries/leveretctl" completions "$1" > "$destdir$prefix/share/$2"
}
completions bash bash-completion/completions/leveretctl
completions zsh zsh/vendor-completions/_leveretctl
completions fish fish/vendor_completions.d/leveretctl.fish
