"""Rows of models and variants, trained and scored side by side."""
