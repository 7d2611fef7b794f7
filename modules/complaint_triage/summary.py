"""What a person reads when the pipeline is done: the result in one table, and one complaint, routed and explained."""

from rich.console import Console
from rich.table import Table

from mlops.storage import objects
from modules.complaint_triage.job import Job
from modules.complaint_triage.settings import NAME
from modules.complaint_triage.src.data.complaints import ID, TEXT
from modules.complaint_triage.src.predictor import wake

REASONS = 5


def show(job: Job, console: Console) -> None:
    """Print the table and the sample."""
    console.print(_table(job))
    console.print(_sample(job))


def _table(job: Job) -> Table:
    records = job.records
    found, registered = records["evaluate"], records["register"]
    table = Table(title=f"{NAME}: version {registered['version']}", show_header=False, title_justify="left")
    data, (low, high) = records["validate"], found["accuracy_interval"]
    products = f"{len(records['train']['products'])} products, {records['train']['words']:,} words"
    table.add_row("data", f"{data['rows']:,} complaints, {data['bad_rows']:,} in quarantine, {products}")
    table.add_row("test accuracy", f"{found['accuracy']:.4f}  ({low:.3f} to {high:.3f})")
    table.add_row("the commonest product", f"{found['accuracy_of_the_commonest']:.4f}")
    table.add_row("test macro F1", f"{found['macro_f1']:.4f}")
    table.add_row("looked at by a person", f"{found['share_reviewed']:.1%}")
    alone = found["accuracy_of_routed"]
    table.add_row("accuracy of the others", "none is routed alone" if alone is None else f"{alone:.4f}")
    everything = found["cost_per_1000_all_reviewed"]
    table.add_row(
        "cost per 1,000", f"{found['cost_per_1000']:,.2f} instead of {everything:,.2f} with a person for each"
    )
    use = "production" if registered["production"] else "production is another version"
    table.add_row("version", f"{registered['version']}  ({use})  model {records['train']['model'][:16]}")
    return table


def _sample(job: Job) -> Table:
    """Fetch the version back from the registry, and let it route and explain its canned complaint."""
    registry = job.platform.registry
    with objects.scratch() as folder:
        triage = wake(registry.fetch(registry.find(NAME, int(job.records["register"]["version"])), folder))
    canned = triage.artifact.canned.complaint
    judged = triage.judge(canned[TEXT])
    sample = Table(title="One complaint, routed and explained", show_header=False, title_justify="left")
    sample.add_row(ID, canned[ID])
    sample.add_row(TEXT, canned[TEXT])
    decision = "review" if judged.doubt >= triage.artifact.card.review_from else "route"
    product = triage.artifact.card.products[judged.product]
    sample.add_row("product", f"{product}, doubt {judged.doubt:.4f}  ->  {decision}")
    for place, part in enumerate(triage.explain(judged.seen, REASONS).contributions, 1):
        sample.add_row(f"reason {place}", f"{part['text']}  ({part['contribution']:+.2f})")
    return sample
