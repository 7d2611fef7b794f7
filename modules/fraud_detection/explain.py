"""What /explain draws of a fraud score: a waterfall from what is usual to what was said."""

from mlops.contract import Explanation, Json
from modules.fraud_detection.src.explainability import waterfall
from modules.fraud_detection.src.explainability.reasons import Reason


def draw(about: Json, explanation: Explanation) -> bytes:
    """Draw the parts of a score, as a PNG."""
    parts = [Reason(**part) for part in explanation.contributions]
    return waterfall.draw(parts, explanation.base_value, explanation.margin, float(about["fraud_probability"]))
