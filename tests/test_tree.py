"""The tree: every path that the specification names is there and does real work."""

import ast
import importlib
import re
from pathlib import Path

import pytest

from mlops import secrets
from mlops.settings import variables
from modules.fraud_detection.settings import FILE, Settings
from tests.conftest import ROOT

MODULE = "modules/fraud_detection"
PATHS = [
    f"{MODULE}/src/data/load_data.py",
    f"{MODULE}/src/features/build_features.py",
    f"{MODULE}/src/features/feature_store.py",
    f"{MODULE}/src/models/base_model.py",
    f"{MODULE}/src/models/logreg.py",
    f"{MODULE}/src/models/xgb.py",
    f"{MODULE}/src/models/evaluate.py",
    f"{MODULE}/src/utils/logger.py",
    f"{MODULE}/src/utils/metrics.py",
    f"{MODULE}/src/validation/data_validation.py",
    f"{MODULE}/src/validation/transform.py",
    f"{MODULE}/src/explainability/shap_explainer.py",
    f"{MODULE}/src/explainability/log_explanations.py",
    f"{MODULE}/config/config.yaml",
    f"{MODULE}/train.py",
    f"{MODULE}/run_pipeline.py",
    f"{MODULE}/predict.py",
    f"{MODULE}/explain.py",
    f"{MODULE}/retrain.py",
    f"{MODULE}/src/router/traffic_split.py",
    "infra/start_sagemaker_training.py",
    "infra/ecr_push.sh",
    "infra/deploy_endpoint.sh",
    "infra/README.md",
    "infra/bootstrap.sh",
    "infra/compose.yaml",
    "terraform/ec2.tf",
    "terraform/s3.tf",
    "terraform/ecr.tf",
    "terraform/provider.tf",
    "terraform/variables.tf",
    "terraform/outputs.tf",
    "monitoring/drift_check.py",
    "monitoring/prometheus_metrics.py",
    "monitoring/drift_report_scheduler.py",
    "monitoring/grafana_dashboards/latency_drift_dashboard.json",
    "monitoring/grafana_dashboards/explainability_latency_panel.json",
    "scripts/promote_model.py",
    "tests/test_predict.py",
    f"{MODULE}/Dockerfile",
    f"{MODULE}/requirements.txt",
    "modules/complaint_triage/README.md",
    "tests/test_train.py",
    "tests/test_data_validation.py",
    ".env.template",
    ".github/workflows/train.yml",
    "notebooks/fraud_eda.ipynb",
    "README.md",
]
SET_BY_OTHERS = {"GIT_COMMIT", "PYTHONPATH", "SAGEMAKER_BIND_TO_PORT"}
"""What the image, Python or SageMaker says, and no person."""
SOURCES = [
    path
    for room in ("mlops", "modules", "monitoring", "infra", "scripts")
    for path in sorted((ROOT / room).rglob("*.py"))
    if path.stat().st_size
]


@pytest.mark.parametrize("path", PATHS)
def test_a_path_of_the_specification_exists_and_is_not_hollow(path: str) -> None:
    assert len((ROOT / path).read_text(encoding="utf-8")) > 300


@pytest.mark.parametrize("path", [path for path in PATHS if path.endswith(".py")])
def test_a_program_of_the_specification_can_be_imported(path: str) -> None:
    assert importlib.import_module(path.removesuffix(".py").replace("/", ".")).__doc__


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_says_what_is_at_home_in_it(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def test_the_core_knows_no_module() -> None:
    for path in (ROOT / "mlops").rglob("*.py"):
        assert not re.search("fraud", path.read_text(encoding="utf-8"), re.IGNORECASE), path


def test_the_template_of_the_environment_names_every_variable_that_is_read_and_no_other() -> None:
    lines = (ROOT / ".env.template").read_text(encoding="utf-8").splitlines()
    named = {line.removeprefix("# ").split("=")[0] for line in lines if re.match(r"(# )?[A-Z_]+=", line)}
    of_the_platform = {name for name in variables(Settings) if name.startswith("MLOPS_PLATFORM__")}
    by_the_code = {
        name
        for path in SOURCES
        if path.name != "lambda_handler.py"  # Terraform gives it its own
        for name in re.findall(r"""environ(?:\.get\(|\[)"([A-Z_]+)\"""", path.read_text(encoding="utf-8"))
    }
    compose = (ROOT / "infra" / "compose.yaml").read_text(encoding="utf-8")
    by_compose = {*re.findall(r"(?<!\$)\$\{([A-Z_]+)", compose), "COMPOSE_PROFILES"}
    assert by_the_code >= {"PROFILE", "REDIS_URL"}
    assert by_compose >= {"REDIS_PASSWORD", "BIND_ADDRESS"}
    read = of_the_platform | by_the_code | by_compose | {secrets.variable("mlops/redis-url")}
    assert named == read - SET_BY_OTHERS


def test_requirements_name_shap_and_matplotlib_with_hashes_and_no_host() -> None:
    text = (ROOT / MODULE / "requirements.txt").read_text(encoding="utf-8")
    assert re.search(r"^shap==", text, re.MULTILINE)
    assert re.search(r"^matplotlib==", text, re.MULTILINE)
    assert "--hash=sha256:" in text
    assert "://" not in text


def test_serving_installs_no_training_package() -> None:
    text = (ROOT / "requirements" / "serve.txt").read_text(encoding="utf-8")
    for name in ("scikit-learn", "shap", "matplotlib", "pandera", "onnxmltools", "mlflow"):
        assert not re.search(rf"^{name}==", text, re.MULTILINE), name


def test_every_configuration_of_the_module_is_read_without_complaint() -> None:
    from modules.fraud_detection import settings

    for path in sorted(FILE.parent.glob("*.yaml")):
        assert settings.read(path, "local", {}).data.columns
