"""What /explain draws: the words that spoke for the product that was said, and those for the one that came next."""

from mlops.contract import Explanation, Json
from mlops.serving import waterfall
from mlops.serving.waterfall import Captions
from modules.complaint_triage.src.predictor import SAID, SCORE


def draw(about: Json, explanation: Explanation) -> bytes:
    """Draw what each word says, as a PNG."""
    speaks = [str(part["text"]).rsplit(" speaks for ", 1)[1] for part in explanation.contributions]
    other = next((product for product in speaks if product != about[SAID]), "the product that came next")
    captions = Captions(
        f"{about[SAID]}, with a doubt of {float(about[SCORE]):.1%}",
        "What each word says, from no words at all to this complaint, in log odds",
        f"speaks for {other}", f"speaks for {about[SAID]}", "no words", "this complaint",
    )  # fmt: skip
    parts = [(str(part["text"]).rsplit(":", 1)[0], float(part["contribution"])) for part in explanation.contributions]
    return waterfall.draw(parts, explanation.base_value, explanation.margin, captions)
