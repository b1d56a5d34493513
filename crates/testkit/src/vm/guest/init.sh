#!/bin/busybox sh
# From the kernel to the host's root: a read-only 9p share below, memory above. Nothing that is written here reaches the
# host, except below /run/reseed/share. `reseed.mode` on the kernel's command line says what to become.
B=/bin/busybox
option() { $B sed -n "s/^\(.* \)\?$1=\([^ ]*\).*/\2/p" /proc/cmdline; }
die() { echo "reseed machine: $*"; $B sync; $B poweroff -f; }
$B mkdir -p /proc /sys /dev /lower /rw
$B mount -t proc proc /proc
$B mount -t sysfs sys /sys
$B mount -t devtmpfs dev /dev
mode=$(option reseed.mode)
# insmod doesn't read the kernel's command line: the host's id, by which a pool knows whose it is, goes to its module here.
while read -r module; do
    args=
    case $module in *-spl.ko) args="spl_hostid=$(option reseed.hostid) spl_panic_halt=1" ;; esac
    $B insmod "/mods/$module" $args || die "the kernel module $module does not load"
done < /mods/order
nine() { $B mount -t 9p -o "trans=virtio,version=9p2000.L,msize=512000,$3" "$1" "$2" || die "the share $1 does not mount"; }
nine root /lower ro,cache=loose
$B mount -t tmpfs rw /rw
$B mkdir /rw/upper /rw/work
$B mount -t overlay -o lowerdir=/lower,upperdir=/rw/upper,workdir=/rw/work root /newroot || die "the overlay does not mount"
N=/newroot
for dir in proc sys dev run tmp; do $B mkdir -p $N/$dir; done
$B mount --move /proc $N/proc
$B mount --move /sys $N/sys
$B mount --move /dev $N/dev
$B mount -t tmpfs -o mode=755 run $N/run
$B mount -t tmpfs -o mode=1777 tmp $N/tmp
$B mkdir -p $N/dev/pts $N/dev/shm $N/run/reseed/share $N/run/lock
$B mount -t devpts devpts $N/dev/pts
$B mount -t tmpfs shm $N/dev/shm
nine share $N/run/reseed/share cache=none
$B cp $B /agent.sh $N/run/reseed/
# What tests start by the thousand is put into memory with its libraries: each opening of a file of the share asks the host
# again, which took two fifths of a call of `zfs`. A file takes its own place, as any that is written here does.
for program in /usr/sbin/zfs /usr/sbin/zpool /usr/bin/dash /usr/bin/bash /usr/bin/ssh /usr/sbin/sshd /usr/sbin/ip; do
    [ ! -e $N$program ] || echo "$program $($B chroot $N /lib64/ld-linux-x86-64.so.2 --list $program)"
done | $B sed -n 's|^[^/]*\(/[^ ]*\).*|\1|p' | $B sort -u | $B chroot $N /run/reseed/busybox sh -c '
    B=/run/reseed/busybox
    here() { $B cp -Pp "$1" "$1.reseed" && $B mv -T "$1.reseed" "$1"; }
    while read -r file; do
        # The host is asked too for where a symbolic link leads.
        while [ -L "$file" ]; do
            here "$file" && to=$($B readlink "$file") || exit 1
            case $to in /*) file=$to ;; *) file=${file%/*}/$to ;; esac
        done
        here "$file" || exit 1
    done
    here /etc/ld.so.cache || exit 1
    for link in /bin /sbin /lib /lib64; do
        [ ! -L $link ] || here $link || exit 1
    done' ||
    die "the programs of tests do not go into memory"
# What the host has below its own /tmp and /run and wants to be seen here.
if [ -e $N/run/reseed/share/shown ]; then
    while read -r dir; do
        $B mkdir -p "$N$dir" && $B mount -o bind "/lower$dir" "$N$dir" || die "$dir can't be shown"
    done < $N/run/reseed/share/shown
fi
# Whoever comes in by ssh gets a shell that reads none of the host's own start files: they took three quarters of each connection.
$B sed -i 's#^\(root:.*:\)[^:]*$#\1/bin/sh#' $N/etc/passwd
$B hostname reseed-vm
$B ip link set lo up
case $mode in
systemd)
    # With this file it would take itself for a container and ignore systemd.unit=.
    $B rm -f $N/.dockerenv $N/run/.containerenv
    # The host's own units and mounts are not wanted here, its generators would bring them back.
    $B rm -rf $N/etc/systemd/system $N/usr/lib/systemd/system-generators $N/etc/systemd/system-generators
    $B mkdir -p $N/etc/systemd/system
    : > $N/etc/fstab
    echo 5eed5eed5eed5eed5eed5eed5eed5eed > $N/etc/machine-id
    $B cp /units/* $N/etc/systemd/system/
    while read -r unit; do $B ln -s /dev/null "$N/etc/systemd/system/$unit"; done < /masked
    if [ -d $N/run/reseed/share/units ]; then $B cp $N/run/reseed/share/units/* $N/etc/systemd/system/; fi
    exec $B switch_root $N /lib/systemd/systemd --system ;;
*)
    exec $B switch_root $N /run/reseed/busybox sh /run/reseed/agent.sh "$mode" ;;
esac
