"""The models that stand beside LBF: one file a paper, on encoders of `models.whole`."""
