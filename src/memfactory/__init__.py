"""MemFactory: run, train and evaluate language-model agents that learn how to remember."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memfactory.commands.memory_agent import MemoryAgent as MemoryAgent

__version__ = "0.1.0"
__all__ = ["MemoryAgent", "__version__"]


def __getattr__(name: str) -> Any:
    """`MemoryAgent` is imported when it is asked for: the package itself stays cheap to import."""
    if name == "MemoryAgent":
        from memfactory.commands.memory_agent import MemoryAgent

        return MemoryAgent
    raise AttributeError(f"module 'memfactory' has no attribute '{name}'")
