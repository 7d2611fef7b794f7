"""What /explain draws of a fraud score: a waterfall from what is usual to what was said."""

from mlops.contract import Explanation, Json
from mlops.serving import waterfall
from mlops.serving.waterfall import Captions


def draw(about: Json, explanation: Explanation) -> bytes:
    """Draw the parts of a score, as a PNG."""
    captions = Captions(
        f"Fraud probability {float(about['fraud_probability']):.1%}",
        "What moved the score from the average to this transaction's, in log odds",
        "lowers the risk", "raises the risk", "average", "this transaction",
    )  # fmt: skip
    # A reason says what the feature is and then which way it moves; the bar shows that.
    parts = [(str(part["text"]).rsplit(":", 1)[0], float(part["contribution"])) for part in explanation.contributions]
    return waterfall.draw(parts, explanation.base_value, explanation.margin, captions)
