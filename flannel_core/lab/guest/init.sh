#!/bin/sh
# The guest's process 1: makes the host's file system a running system, then carries out one command after the other.
# A command comes as a line on the port "control": a token, and a shell script in base64. Its output goes to the ports
# "stdout" and "stderr", each ended by the token; then the exit status to "control".
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mkdir -p /dev/pts /dev/shm /run/netns /run/lock
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
ln -sfn /proc/self/fd /dev/fd
ln -sf /proc/self/fd/0 /dev/stdin
ln -sf /proc/self/fd/1 /dev/stdout
ln -sf /proc/self/fd/2 /dev/stderr
hostname vm
ip link set lo up
for port in /sys/class/virtio-ports/*; do ln -sf "/dev/${port##*/}" "/dev/$(cat "$port/name")"; done
exec 3<>/dev/flannel.control 4>/dev/flannel.stdout 5>/dev/flannel.stderr
echo ready >&3
while read -r token script <&3; do
    echo "$script" | base64 -d > /run/command
    setsid sh /run/command </dev/null >&4 2>&5 3>&- 4>&- 5>&-
    status=$?
    printf %s "$token" >&4
    printf %s "$token" >&5
    echo "$status" >&3
done
