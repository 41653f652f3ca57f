"""What the detectors `open_clip`, `timm` and `transformers` share: pretrained networks as encoders.

Each of those modules builds a `encoder.Tower` and says what it is made of; here are the files
and their licences (`source`, `licence`), how a picture is put before the network (`view`), how
boxes are read off its map (`tokens`), and which boxes (`regions`).
"""
