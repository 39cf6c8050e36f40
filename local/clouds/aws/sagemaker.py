"""Changes moto's SageMaker from canned answers to one that trains and serves on this machine.

moto calls a training job Completed as soon as it exists, accepts its name twice, knows neither StopTrainingJob nor
UpdateEndpoint, and starts no container. Everything else of moto's SageMaker stays as it is.
"""

from __future__ import annotations

from typing import Any

from local.clouds.aws.endpoints import EndpointDriver
from local.clouds.aws.training import RUNNING, TrainingRunner
from local.compat import (
    ActionResult,
    EmptyResult,
    FakeEndpointConfig,
    ResourceInUseException,
    SageMakerModelBackend,
    SageMakerResponse,
    ValidationError,
    model_named,
    parameter,
)


def install(runner: TrainingRunner, driver: EndpointDriver) -> None:
    """Patch moto's SageMaker; call once, before the server answers."""
    _patch_training(runner)
    _patch_models()
    _patch_endpoints(driver)


def _patch_training(runner: TrainingRunner) -> None:
    create = SageMakerResponse.create_training_job

    def create_training_job(self: Any) -> Any:
        name = parameter(self, "TrainingJobName")
        jobs = self.sagemaker_backend.training_jobs
        if name in jobs:
            raise ResourceInUseException(f"Job name must be unique within an AWS account and region: {jobs[name].arn}")
        answer = create(self)
        job = jobs[name]
        job.environment = parameter(self, "Environment") or {}
        runner.submit(job)
        return answer

    def stop_training_job(self: Any) -> Any:
        name = parameter(self, "TrainingJobName")
        job = self.sagemaker_backend.training_jobs.get(name)
        if job is None:
            raise ValidationError(f"Could not find training job '{name}'.")
        if job.training_job_status not in RUNNING:
            raise ValidationError(
                f"The request was rejected because the training job is in status {job.training_job_status}."
            )
        if job.training_job_status == "InProgress":
            runner.stop(job)
        return EmptyResult()

    SageMakerResponse.create_training_job = create_training_job
    SageMakerResponse.stop_training_job = stop_training_job


def _patch_models() -> None:
    create_model, create_config = SageMakerModelBackend.create_model, SageMakerModelBackend.create_endpoint_config

    def create_model_once(self: Any, model_name: str, *args: Any, **kwargs: Any) -> Any:
        if (found := model_named(self, model_name)) is not None:
            raise ValidationError(f'Cannot create already existing model "{found.arn}".')
        return create_model(self, model_name, *args, **kwargs)

    def create_config_once(self: Any, endpoint_config_name: str, *args: Any, **kwargs: Any) -> Any:
        if endpoint_config_name in self.endpoint_configs:
            raise ValidationError(f'Cannot create already existing endpoint configuration "{endpoint_config_name}".')
        return create_config(self, endpoint_config_name, *args, **kwargs)

    def known_instance_type(self: Any, instance_type: str) -> None:
        """Nothing: moto's own list has nothing younger than 2020, and the front has checked it against SageMaker's."""

    FakeEndpointConfig.validate_instance_type = known_instance_type
    SageMakerModelBackend.create_model = create_model_once
    SageMakerModelBackend.create_endpoint_config = create_config_once


def _patch_endpoints(driver: EndpointDriver) -> None:
    create = SageMakerModelBackend.create_endpoint

    def start(backend: Any, endpoint: Any, config_name: str, status: str) -> None:
        config = backend.endpoint_configs[config_name]
        endpoint.endpoint_status = status
        driver.submit(endpoint, config, lambda name: model_named(backend, name))

    def create_endpoint(self: Any, endpoint_name: str, endpoint_config_name: str, tags: Any) -> Any:
        if endpoint_name in self.endpoints:
            raise ValidationError(f'Cannot create already existing endpoint "{self.endpoints[endpoint_name].arn}".')
        endpoint = create(self, endpoint_name, endpoint_config_name, tags)
        start(self, endpoint, endpoint_config_name, "Creating")
        return endpoint

    def update_endpoint(self: Any) -> Any:
        name, config_name = parameter(self, "EndpointName"), parameter(self, "EndpointConfigName")
        backend = self.sagemaker_backend
        backend.describe_endpoint(name)  # raises when it does not exist
        backend.describe_endpoint_config(config_name)
        endpoint = backend.endpoints[name]
        if endpoint.endpoint_status not in ("InService", "Failed"):
            raise ValidationError(f'Cannot update in-progress endpoint "{endpoint.arn}".')
        start(backend, endpoint, config_name, "Updating")
        return ActionResult({"EndpointArn": endpoint.arn})

    def delete_endpoint(self: Any, endpoint_name: str) -> None:
        self.describe_endpoint(endpoint_name)  # raises when it does not exist
        endpoint = self.endpoints[endpoint_name]
        if endpoint.endpoint_status in ("Updating", "RollingBack", "Deleting"):
            raise ValidationError(f'Cannot update in-progress endpoint "{endpoint.arn}".')
        endpoint.endpoint_status = "Deleting"
        driver.delete(endpoint_name, lambda: self.endpoints.pop(endpoint_name, None))

    SageMakerModelBackend.create_endpoint = create_endpoint
    SageMakerModelBackend.delete_endpoint = delete_endpoint
    SageMakerResponse.update_endpoint = update_endpoint
