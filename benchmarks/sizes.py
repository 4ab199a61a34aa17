"""Model sizes and workloads that all sides of a comparison share."""

SIZES = {
    "tiny": dict(hidden=256, layers=4, heads=4, intermediate=688, vocab=512, batch=8),
    "small": dict(hidden=768, layers=12, heads=12, intermediate=2048, vocab=8192, batch=4),
}
LENGTH = 512  # positions of a training row
PROMPT, NEW = 256, 64  # tokens of a generation
TURNS, OBSERVATION, ACTION = 10, 100, 30  # turns of an episode, and tokens of each
