import json
from pathlib import Path

import pytest

from shared.errors import InvalidInputError
from training_containers.finetune.hyperparameters import (
    azureml_hyperparameters,
    parse_hyperparameters,
    sagemaker_hyperparameters,
)


def test_strings_become_typed_values() -> None:
    hyper = parse_hyperparameters({"job_id": "qa-1", "epochs": "7", "learning_rate": "2e-3", "data_start_s": "12.5"})
    assert (hyper.epochs, hyper.learning_rate, hyper.data_start_s, hyper.data_end_s) == (7, 0.002, 12.5, None)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ({"job_id": "a", "learning_rte": "1"}, "unknown hyperparameter 'learning_rte'; did you mean learning_rate"),
        ({"job_id": "a", "zzz": "1"}, "unknown hyperparameter 'zzz'; known: job_id"),
        ({"job_id": "a", "epochs": "many"}, "epochs is 'many'"),
        ({"job_id": "a", "epochs": "0"}, "epochs is '0'.*>= 1"),
        ({"job_id": "Not A Name"}, "job_id is 'Not A Name'"),
        ({"job_id": "a", "cloud": "mars"}, "cloud is 'mars'"),
        ({"epochs": "1"}, "job_id is missing"),
    ],
)
def test_a_wrong_hyperparameter_is_named(raw: dict[str, str], reason: str) -> None:
    with pytest.raises(InvalidInputError, match=reason):
        parse_hyperparameters(raw)


def test_azure_options_win_over_the_environment() -> None:
    env = {"OPPORTUNE_HP_JOB_ID": "qa-1", "OPPORTUNE_HP_EPOCHS": "3", "OTHER": "x"}
    hyper = azureml_hyperparameters(["epochs=4", "base_model=a=b"], env)
    assert (hyper.job_id, hyper.epochs, hyper.base_model) == ("qa-1", 4, "a=b")
    with pytest.raises(InvalidInputError, match="write it as name=value"):
        azureml_hyperparameters(["epochs"], env)


def test_sagemaker_file_may_hold_sagemakers_own_keys(tmp_path: Path) -> None:
    path = tmp_path / "input/config/hyperparameters.json"
    with pytest.raises(InvalidInputError, match="cannot be read"):
        sagemaker_hyperparameters(tmp_path)
    path.parent.mkdir(parents=True)
    theirs = {"sagemaker_region": "eu-west-1", "_tuning_objective_metric": "llm_bleu", "_kms": "x"}
    path.write_text(json.dumps({"job_id": "qa-1", **theirs}))
    assert sagemaker_hyperparameters(tmp_path).job_id == "qa-1"
    for wrong in ("{", "[]", '{"job_id": 1}'):
        path.write_text(wrong)
        with pytest.raises(InvalidInputError, match="not"):
            sagemaker_hyperparameters(tmp_path)


def test_values_that_sagemakers_sdk_encoded_as_json_are_understood() -> None:
    encoded = {"job_id": '"qa-1"', "epochs": "7", "learning_rate": '"0.002"', "compile": "true", "data_end_s": "null"}
    hyper = parse_hyperparameters(encoded)
    assert (hyper.job_id, hyper.epochs, hyper.learning_rate) == ("qa-1", 7, 0.002)
    assert (hyper.compile, hyper.data_end_s) == (True, None)
    with pytest.raises(InvalidInputError, match="epochs is 'many'"):
        parse_hyperparameters({"job_id": '"qa-1"', "epochs": '"many"'})


def test_a_hyperparameter_of_an_older_message_means_nothing() -> None:
    assert parse_hyperparameters({"job_id": "qa-1", "pushgateway_url": "http://x:9091"}).job_id == "qa-1"
