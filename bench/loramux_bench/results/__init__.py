"""From records to figures: measures, summary, cost, LLMPerf's files."""
