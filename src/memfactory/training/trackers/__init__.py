"""Where metrics go besides metrics.jsonl (which is always written): one file a service."""
