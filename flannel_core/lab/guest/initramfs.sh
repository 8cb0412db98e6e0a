#!/bin/busybox sh
# First in the guest, out of memory: mounts the host's file system read-only, lays a tmpfs over it, and goes on inside.
# /modules.list has the kernel modules that takes, in order; /modules.directory the path of all of them on the host.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
while read -r module; do insmod "/modules/$module" || echo "insmod $module failed"; done < /modules.list
mount -t virtiofs -o ro root /lower || exec sh
mount -t tmpfs -o mode=755 tmpfs /upper
mkdir /upper/data /upper/work
mount -t overlay -o lowerdir=/lower,upperdir=/upper/data,workdir=/upper/work overlay /new || exec sh
mount -t tmpfs -o mode=755 tmpfs /new/run
mkdir -p "/new/lib/modules/$(uname -r)"
mount --bind "/lower$(cat /modules.directory)" "/new/lib/modules/$(uname -r)"
cp /init.sh /new/run/init.sh
mount --move /proc /new/proc
mount --move /sys /new/sys
mount --move /dev /new/dev
exec switch_root /new /bin/sh /run/init.sh
