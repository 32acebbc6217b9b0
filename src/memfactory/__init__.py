"""MemFactory: run, train and evaluate language-model agents that learn how to remember."""

__version__ = "0.1.0"
