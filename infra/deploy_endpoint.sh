#!/usr/bin/env bash
# Put a version behind a SageMaker endpoint, change it, or take it away with --delete; --help lists the options.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=$root/.venv/bin/python
[[ -x $python ]] || python=python3
PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} exec "$python" -m infra.deploy_endpoint "$@"
