"""How probable it is that an answer is right, and when to give none."""

from .calibration import Calibration, fit_calibration
from .risk_control import RiskControl

__all__ = ["Calibration", "RiskControl", "fit_calibration"]
