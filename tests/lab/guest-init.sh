#!/bin/busybox sh
# First program of a guest (user-mode Linux or QEMU): builds a throw-away world over the host's files, runs the command in
# it, hands its exit status to the host and powers off. The room fills in how to mount the host's files on /mnt/lower and
# the directory that host and guest share on /mnt/exchange.
# Busybox has most commands in itself, once it finds itself in /proc: to start programs is what takes time in a guest.
/bin/mount -t proc proc /proc
mount -t tmpfs -o size=90% tmpfs /mnt || exit 1
mkdir /mnt/lower /mnt/exchange /mnt/upper /mnt/work /mnt/root
@MOUNT@
exec 9>/mnt/exchange/status # the only thing that reaches the host, besides the console
mount -t overlay overlay -o lowerdir=/mnt/lower,upperdir=/mnt/upper,workdir=/mnt/work /mnt/root || exit 1
cp /mnt/exchange/command.sh /mnt/root/.command.sh
cat >/mnt/root/.world.sh <<'END'
/bin/mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup2 /sys/fs/cgroup 2>/dev/null
mount -t tmpfs tmpfs /run
mount -t tmpfs -o mode=755 tmpfs /dev
mknod -m 666 /dev/null c 1 3
mknod -m 666 /dev/zero c 1 5
mknod -m 666 /dev/full c 1 7
mknod -m 666 /dev/random c 1 8
mknod -m 666 /dev/urandom c 1 9
mknod -m 644 /dev/kmsg c 1 11
mknod -m 666 /dev/tty c 5 0
mknod -m 600 /dev/console c 5 1
mknod -m 666 /dev/ptmx c 5 2
mkdir /dev/net /dev/pts /dev/shm
mknod -m 666 /dev/net/tun c 10 200
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
ln -s /proc/self/fd /dev/fd
ln -s /proc/self/fd/0 /dev/stdin
ln -s /proc/self/fd/1 /dev/stdout
ln -s /proc/self/fd/2 /dev/stderr
mkdir -p /run/lock /run/user
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
@WORLD@
ip link set lo up
echo @HOSTNAME@ >/proc/sys/kernel/hostname

# Through a pipe: the command must not think that it talks to a terminal.
stty -F /dev/console -opost
mkfifo /run/console
cat /run/console >/dev/console 9>&- &
printer=$!
/bin/sh /.command.sh </dev/null >/run/console 2>&1 9>&-
status=$?
tries=0
while kill -0 $printer 2>/dev/null && [ $tries -lt 20 ]; do sleep 0.05; tries=$((tries + 1)); done # daemons may hold the pipe
echo $status >&9
exec 9>&-
exec /bin/busybox poweroff -f
END

# Moved over the old root, and not merely a chroot: entering a mount namespace would step out of that.
cd /mnt/root && mount -n --move . / && exec chroot . /bin/busybox sh /.world.sh
