#!/bin/sh
exec /opt/flannel/bin/flannelctl docker-options "$@"
