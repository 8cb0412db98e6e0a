"""``python -m flannel_cni``: the plugin under an interpreter of the host's."""

from .plugin import main

raise SystemExit(main())
