"""A file run as a program: `python modules/fraud_detection/train.py` is the word `train`."""

import runpy
import sys


def run(word: str) -> None:
    """Run a word of the module with the arguments that the program was given."""
    sys.argv.insert(1, word)
    runpy.run_module("modules.fraud_detection", run_name="__main__", alter_sys=True)
