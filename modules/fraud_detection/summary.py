"""What a person reads when the pipeline is done: the result in one table, and one transaction scored and explained."""

import resource
import sys

import polars as pl
from rich.console import Console
from rich.table import Table

from mlops.storage import objects
from modules.fraud_detection.job import Job
from modules.fraud_detection.settings import NAME
from modules.fraud_detection.src.features import feature_store
from modules.fraud_detection.src.predictor import Predictor
from modules.fraud_detection.src.utils.logger import masked

SHOWN_METRICS = ("average_precision", "roc_auc", "recall_at_1pct_fpr", "card_precision_at_100", "calibration_error")


def show(job: Job, console: Console) -> None:
    """Print the table and the sample."""
    console.print(_table(job))
    console.print(_sample(job))


def _table(job: Job) -> Table:
    records = job.records
    metrics, intervals = records["evaluate"]["metrics"], records["evaluate"]["intervals"]
    table = Table(title=f"{NAME}: version {records['register']['version']}", show_header=False, title_justify="left")
    data, built = records["validate"], records["features"]
    table.add_row(
        "data", f"{data['rows']:,} transactions, {data['bad_rows']:,} in quarantine, {built['features']} features"
    )
    table.add_row("snapshot", f"{built['snapshot']}  ({str(built['since'])[:10]} to {str(built['until'])[:10]})")
    for name in (name for name in SHOWN_METRICS if name in metrics):
        spread = f"  ({intervals[name][0]:.3f} to {intervals[name][1]:.3f})" if name in intervals else ""
        table.add_row(f"test {name}", f"{metrics[name]:.4f}{spread}")
    table.add_row("logistic regression", f"{records['evaluate']['baseline_average_precision']:.4f} average precision")
    without = metrics["cost_per_1000_without_model"]
    table.add_row("cost per 1,000", f"{metrics['cost_per_1000']:,.2f} instead of {without:,.2f} without a model")
    top = [f"{row['feature']} {row['mean_abs_shap']:.2f}" for row in records["explain"]["importance"][:5]]
    table.add_row("top features", "\n".join(top))
    alias = "  (production)" if records["register"]["production"] else "  (production is another version)"
    table.add_row("version", f"{records['register']['version']}{alias}  model {records['train']['model'][:16]}")
    table.add_row("peak memory", f"{_peak_memory():.2f} GiB")
    settings = job.platform.settings
    table.add_row("look next", f"mlflow ui --backend-store-uri {masked(settings.tracking)}\n{_pictures(job)}")
    return table


def _peak_memory() -> float:
    """The most memory that this process has held, in GiB; Linux counts it in KiB, macOS in bytes."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1 << 30 if sys.platform == "darwin" else 1 << 20)


def _pictures(job: Job) -> str:
    return job.platform.objects.url(f"explanations/{job.records['train']['model'][:16]}")


def _sample(job: Job) -> Table:
    """Fetch the version back from the registry, and let it score and explain the latest fraud of the data."""
    dataset = job.settings.data
    table = feature_store.load(job.platform.objects, job.records["features"]["snapshot"])
    row = table.filter(pl.col(dataset.label.column) == 1).sort(dataset.time.column, dataset.id_column).tail(1)
    registry = job.platform.registry
    with objects.scratch() as folder:
        version = registry.find(NAME, int(job.records["register"]["version"]))
        predictor = Predictor.wake(registry.fetch(version, folder))
    answer, reasons = predictor.predict(row)[0], predictor.explain(row)[0]
    shown = [dataset.id_column, dataset.time.column, *dataset.entities, *([dataset.amount] if dataset.amount else [])]
    sample = Table(title="One transaction, scored and explained", show_header=False, title_justify="left")
    for name in shown:
        sample.add_row(name, str(row[name][0]))
    sample.add_row("fraud probability", f"{answer.fraud_probability:.4f}  ->  {answer.decision}")
    for place, reason in enumerate(reasons, 1):
        sample.add_row(f"reason {place}", f"{reason.text}  ({reason.contribution:+.2f})")
    return sample
