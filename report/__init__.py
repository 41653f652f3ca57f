"""Pages that people look at: what an evaluation and a comparison found, with pictures."""
