"""Train, deploy and invoke through SageMaker's own SDK on this machine's engine, without an account: local mode.

python tests/images/sagemaker_local.py SNAPSHOT, the folder of one feature snapshot. The SDK's second version has local
mode and the third has not; it lives in an environment of its own: pip install 'sagemaker[local]<3'.
"""

import json
import os
import sys
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

ROLE = "arn:aws:iam::000000000000:role/local"
# Local mode wants credentials and a region, and asks nobody with them while everything lies in files.
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local", "AWS_DEFAULT_REGION": "us-east-1",
    "SAGEMAKER_SUPPRESS_V2_WARNING": "1",
}  # fmt: skip
SILENT = {"SchemaVersion": "1.0", "SageMaker": {"PythonSDK": {"Modules": {"TelemetryOptOut": True}}}}
"""The SDK's settings: it is not to tell its maker what it is used for."""
TRANSACTION = {
    "transaction_id": "local", "timestamp": "2025-03-13T10:00:00", "customer_id": 7, "terminal_id": 11, "amount": 412.5,
}  # fmt: skip


def main(snapshot: Path, train: str = "fraud-train:local", serve: str = "fraud-serve:local") -> None:
    """Go all the way once, print what the endpoint says, and take it away."""
    os.environ.update(ENVIRONMENT)
    from sagemaker.deserializers import JSONDeserializer  # type: ignore[import-not-found]
    from sagemaker.estimator import Estimator  # type: ignore[import-not-found]
    from sagemaker.local import LocalSession  # type: ignore[import-not-found]
    from sagemaker.model import Model  # type: ignore[import-not-found]
    from sagemaker.predictor import Predictor  # type: ignore[import-not-found]
    from sagemaker.serializers import JSONSerializer  # type: ignore[import-not-found]

    output, session = Path(mkdtemp()), LocalSession(disable_local_code=True, sagemaker_config=SILENT)
    estimator = Estimator(
        image_uri=train, role=ROLE, instance_count=1, instance_type="local", output_path=output.as_uri(),
        sagemaker_session=session, environment={"MLOPS_SPLIT__TRAIN": "21d"}, hyperparameters={"rounds": 40},
    )  # fmt: skip
    estimator.fit({"train": snapshot.resolve().as_uri()})
    print(f"trained: {estimator.model_data}")
    model = Model(
        image_uri=serve, model_data=estimator.model_data, role=ROLE, predictor_cls=Predictor, sagemaker_session=session
    )
    endpoint: Any = model.deploy(1, "local", serializer=JSONSerializer(), deserializer=JSONDeserializer())
    try:
        print(f"decided: {json.dumps(endpoint.predict(TRANSACTION))}")
        print(f"decided: {json.dumps(endpoint.predict({'transactions': [TRANSACTION]}))}")
    finally:
        endpoint.delete_endpoint()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
