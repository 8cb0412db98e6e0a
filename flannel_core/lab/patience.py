"""By how much everything takes longer here than on a machine of today."""

import os

PATIENCE = float(os.environ.get("FLANNEL_LAB_PATIENCE", "1"))
"""What every time limit of the lab is multiplied by: more than 1 where the processor is emulated (``lab.vm``)."""
