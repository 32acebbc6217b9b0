"""Between memories as data hold them and those of a bank: what a rollout's bank begins with, and what became of it."""

from __future__ import annotations

from collections.abc import Sequence

from memfactory.data.dialogue import Memory
from memfactory.memory.bank import MemoryBank
from memfactory.modules.retrievers import Retriever


async def put_memories(memories: Sequence[Memory], bank: MemoryBank, retriever: Retriever) -> None:
    """Add memories to a bank in their order, embedded as its retriever wants it; no text comes twice."""
    if not memories:
        return
    vectors = await retriever.vectors([memory.text for memory in memories])
    with bank.transaction():
        for memory in memories:
            if bank.with_text(memory.text):
                continue
            bank.add(
                memory.text,
                embedding=vectors[memory.text],
                key=memory.key,
                type=memory.type,
                tags=memory.tags,
                session=memory.session,
                time=memory.time,
                sources=memory.sources,
            )


def memories_of(bank: MemoryBank) -> tuple[Memory, ...]:
    """All of a bank in the order of adding, each with the session and time of its last change."""
    return tuple(
        Memory(
            text=item.text,
            session=item.updated_session,
            time=item.updated_time,
            key=item.key,
            type=item.type,
            tags=item.tags,
            sources=item.sources,
        )
        for item in bank.items(embeddings=False)
    )
