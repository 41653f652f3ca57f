"""What a step of a training is made of: its batch, its loss, what moves the weights, and where."""
