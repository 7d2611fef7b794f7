"""What the API is measured beside: an application that does nothing, and one as tutorials write it."""

import os
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from pydantic import create_model

Message = MutableMapping[str, Any]


async def nothing(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """Read the body and answer with an empty object."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body", False):
        pass
    headers = [(b"content-type", b"application/json"), (b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"{}"})


def tutorial() -> FastAPI:
    """FastAPI, pydantic, one DataFrame for each request, XGBoost's scikit-learn face; features come ready-made."""
    import pandas as pd
    from xgboost import XGBClassifier

    names = os.environ["PEER_FEATURES"].split(",")
    model = XGBClassifier()
    model.load_model(Path(os.environ["PEER_MODEL"]) / "model.ubj")
    features = create_model("Features", **dict.fromkeys(names, (float, ...)))  # type: ignore[call-overload]
    app = FastAPI()

    @app.post("/predict")
    def predict(row: features) -> dict[str, float]:
        frame = pd.DataFrame([row.model_dump()])
        return {"fraud_probability": float(model.predict_proba(frame)[0, 1])}

    return app
