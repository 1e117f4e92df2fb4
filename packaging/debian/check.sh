#!/bin/bash
# Installs, upgrades, removes and purges the package in a root of its own, and looks at what is there after each.
#
#   unshare --mount --propagation private --net bash check.sh OLD.deb NEW.deb
#
# The root is this machine's with a layer above it that takes every write; both end with the mount namespace. In a network
# namespace of its own, since removing the package cleans up behind the program.
set -euo pipefail
old="$(realpath "$1")"
new="$(realpath "$2")"

layer="$(mktemp --directory --tmpdir chadthrottle-package.XXXXXX)"
trap 'umount --recursive --lazy "$layer"; rmdir "$layer"' EXIT
mount -t tmpfs tmpfs "$layer"
mkdir "$layer"/{upper,work,root}
mount -t overlay overlay -o "lowerdir=/,upperdir=$layer/upper,workdir=$layer/work" "$layer/root"
# /run and /tmp are the test's own; the packages are on a mount that the layer does not see.
mount -t tmpfs tmpfs "$layer/root/run"
mount -t tmpfs tmpfs "$layer/root/tmp"
mount --bind /proc "$layer/root/proc"
mount --bind /dev "$layer/root/dev"
cp "$old" "$layer/root/tmp/old.deb"
cp "$new" "$layer/root/tmp/new.deb"

inside() { env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 chroot "$layer/root" "$@"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }
is_there() { inside test -e "$1" || fail "$2: $1 is not there"; }
is_gone() { ! inside test -e "$1" || fail "$2: $1 is still there"; }

# What belongs to dpkg and to the tools that keep groups, apart from what they say of others.
books='^\./(var/lib/dpkg|var/log|var/cache|etc/(group|gshadow|passwd|shadow|subuid|subgid)-?$|etc/\.|root/|tmp|run|proc|dev)'
written() { (cd "$layer/upper" && find . ! -type d | grep -Ev "$books" || true); }

! inside dpkg-query --status chadthrottle >/dev/null 2>&1 || fail "this machine has the package already"
inside getent group chadthrottle >/dev/null && fail "this machine has the group already"
# Whoever has run the program on this machine has these: out of sight here, before one looks at what is written, since the
# layer notes what it hides as a file.
inside rm -rf /etc/chadthrottle /var/lib/chadthrottle
before="$(written)"
groups="$(inside getent group)"

inside dpkg --install /tmp/old.deb
for file in /usr/bin/chadthrottle /usr/lib/systemd/system/chadthrottle.service /usr/lib/sysusers.d/chadthrottle.conf \
    /usr/share/man/man1/chadthrottle.1.gz /usr/share/man/man1/chadthrottle-rules-add.1.gz \
    /usr/share/bash-completion/completions/chadthrottle /usr/share/doc/chadthrottle/copyright; do
    # dpkg can be told to leave documentation out (path-exclude), as images for containers do.
    case "$file" in /usr/share/*) inside dpkg --listfiles chadthrottle | grep -qx "$file" || fail "the package lacks $file" ;;
    *) is_there "$file" "installed" ;; esac
done
inside chadthrottle --version
inside chadthrottle --demo --demo-picture 80x24 >/dev/null
group="$(inside getent group chadthrottle)" || fail "installed: there is no group chadthrottle"
if inside sh -c 'command -v systemd-analyze' >/dev/null; then
    complaints="$(inside systemd-analyze verify --man=no /usr/lib/systemd/system/chadthrottle.service 2>&1 | grep -i chadthrottle || true)"
    [ -z "$complaints" ] || fail "the unit: $complaints"
fi

# What the administrator and the program write.
inside mkdir -p /etc/chadthrottle /var/lib/chadthrottle
inside sh -c 'printf "[[rule]]\nname = \"mine\"\nmatch = { user = \"root\" }\nupload = \"1M\"\n" >/etc/chadthrottle/config.toml'
inside sh -c 'echo used >/var/lib/chadthrottle/history.db'
inside chadthrottle rules list >/dev/null || fail "the rules cannot be read"

inside dpkg --install /tmp/new.deb
[ "$(inside getent group chadthrottle)" = "$group" ] || fail "upgraded: the group is another one"
is_there /etc/chadthrottle/config.toml "upgraded"
is_there /var/lib/chadthrottle/history.db "upgraded"
inside chadthrottle --version

inside dpkg --remove chadthrottle
is_gone /usr/bin/chadthrottle "removed"
is_gone /usr/lib/systemd/system/chadthrottle.service "removed"
is_there /etc/chadthrottle/config.toml "removed"
is_there /var/lib/chadthrottle/history.db "removed"

inside dpkg --purge chadthrottle
is_gone /etc/chadthrottle "purged"
is_gone /var/lib/chadthrottle "purged"
[ "$(inside getent group)" = "$groups" ] || fail "purged: the groups are not as they were"
! inside dpkg-query --status chadthrottle >/dev/null 2>&1 || fail "purged: dpkg still knows the package"
left="$(comm -13 <(sort <<<"$before") <(written | sort))"
[ -z "$left" ] || fail "purged: these are left: $left"
echo "installed, upgraded, removed and purged: nothing is left"
