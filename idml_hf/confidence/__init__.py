"""How probable it is that an answer is right, and when to give none."""

from .calibration import Calibration
from .risk_control import RiskControl
from .verdict import Verdict

__all__ = ["Calibration", "RiskControl", "Verdict"]
