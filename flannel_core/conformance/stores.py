"""What every store has to do. Subclass :class:`StoreConformance` in your plugin's tests, a few lines are enough::

    class TestConformance(StoreConformance):
        store_class = EtcdStore

        @pytest.fixture
        def place(self, etcd_server):                       # what several agents share
            return Place(etcd_server, prefix=f"/{uuid4()}")

        def make_store(self, place, *, lease_ttl=86400, dry_run=False): ...
        async def write_raw(self, place, key, value): ...
        async def write_unheard(self, place, key, value): ...
        async def everything(self, place): ...

What a store cannot do (its ``capabilities``) is not asked of it, see ``applying.py``.
"""

from __future__ import annotations

from .all_leases import AllLeasesChecks
from .own_lease import OwnLeaseChecks
from .store_kit import DUAL as DUAL
from .store_kit import GO_LEASE as GO_LEASE
from .store_kit import IPV4 as IPV4
from .store_kit import IPV6 as IPV6
from .store_kit import ONE as ONE
from .store_kit import TWENTY as TWENTY
from .store_kit import host as host
from .store_kit import net_conf as net_conf
from .store_kit import reservation as reservation


class StoreConformance(OwnLeaseChecks, AllLeasesChecks):
    """All checks of a store."""
