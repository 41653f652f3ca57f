"""Vectors, ranks and measures: from a model's output to Recall@K."""
