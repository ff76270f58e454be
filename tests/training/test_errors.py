"""Errors: readable, and unchanged on their way from a data worker to the training process."""

import pickle

from training.errors import DataError


def test_an_error_of_a_data_worker_reaches_the_training_process_unchanged() -> None:
    error = pickle.loads(pickle.dumps(DataError("a.parquet, row 3", "is no readable image", "Repair it")))
    assert type(error) is DataError
    assert str(error) == "a.parquet, row 3: is no readable image. Repair it"
