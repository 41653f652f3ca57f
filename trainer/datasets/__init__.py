"""One file a data set: a layout on disk becomes the one queries table.

A reader is a module with `looks_for`, `find` and `read`; `READERS` lists them.
To add a data set, write such a module and add it to the list.
"""

from pathlib import Path

from cqr.errors import UserError
from cqr.pipeline.feature_file import FeatureFile
from cqr.trainer.datasets import css, table
from cqr.trainer.queries import Dataset

READERS = (css, table)


def recognise(features: FeatureFile, data: Path | None = None) -> Dataset:
    """Read the data set that goes with a feature file.

    Args:
        features: the images that have regions.
        data: a folder or a table; None looks in and beside the image folder,
            then beside the feature file.

    Raises:
        UserError: nothing was recognised (the message lists what was looked for),
            or what was recognised is broken.
    """
    if data is not None and not data.exists():
        raise UserError(f"--data {data} does not exist")
    for reader in READERS:
        found = reader.find(features, data)
        if found is not None:
            return reader.read(found, features)
    looked = "; ".join(line for reader in READERS for line in reader.looks_for(features, data))
    raise UserError(
        f"no queries found for {features.path}: looked for {looked}; "
        "write such a table or name a data set with --data"
    )
