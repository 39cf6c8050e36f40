"""Everything that can go wrong, as one tree.

OpportuneError
├── InvalidInputError        the caller's input is wrong; say what, which, what to do (exit 2, HTTP 4xx)
│   ├── ConfigurationError   a setting is wrong; the message names the variable
│   ├── ContractError        a message or document does not match its contract
│   │   └── UnknownVersionError   the contract's version is newer than this code
│   └── BodyTooLargeError    a request body over the limit (HTTP 413)
├── MetricsError             the metrics cannot support a decision; the caller holds
│   ├── NoSamplesError       a query returned nothing
│   └── MetricsUnavailableError   Prometheus did not answer
├── UnavailableError         a cloud service did not answer; the caller may retry
│   └── VersionNotLoadedError   the instance that was asked has not loaded the version; the stable one may answer
├── RefusedError             a cloud service refuses for good (quota, role, image, a wrong value); a retry is in vain
├── CapacityError            a cloud has no machine of that kind now; another cloud may
├── ConflictError            a conditional write lost: somebody else was first
├── NotFoundError            a document or object does not exist
├── ModelError               a model artifact is unusable
│   └── IntegrityError       a file's sha256 differs from its manifest
└── NoEndpointError          no endpoint answered within the caller's deadline
"""

from shared.addresses import shown, without_users


class OpportuneError(Exception):
    """Base of every error this project raises on purpose."""


class InvalidInputError(OpportuneError):
    """The caller's input is wrong."""


class ConfigurationError(InvalidInputError):
    """A setting is wrong."""

    def __init__(self, variable: str, value: str | None, allowed: str) -> None:
        shown = "is not set" if value is None else f"is {value!r}"
        super().__init__(f"{variable} {shown}; allowed: {allowed}")
        self.variable = variable


class ContractError(InvalidInputError):
    """A message or document does not match its contract."""


class UnknownVersionError(ContractError):
    """The document was written by a newer program."""

    def __init__(self, contract: str, version: object, known: int) -> None:
        super().__init__(
            f"{contract} has version {version!r}, this program knows up to {known}; upgrade it, then redrive"
        )


class BodyTooLargeError(InvalidInputError):
    """A request body is over the limit."""

    def __init__(self, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(f"body of {size_bytes} bytes is over the limit of {limit_bytes}")


class MetricsError(OpportuneError):
    """The metrics cannot support a decision."""


class NoSamplesError(MetricsError):
    """A query returned no samples; `why` is what is known of the cause."""

    def __init__(self, query: str, why: str = "") -> None:
        super().__init__(f"no samples for {query}; {why or 'is the serving container scraped?'}")
        self.query = query


class MetricsUnavailableError(MetricsError):
    """Prometheus did not answer."""

    def __init__(self, url: str, reason: str) -> None:
        self.reason = without_users(reason)
        super().__init__(f"Prometheus at {shown(url)} did not answer: {self.reason}")


class UnavailableError(OpportuneError):
    """A cloud service did not answer."""

    def __init__(self, service: str, reason: str) -> None:
        super().__init__(f"{service} is unavailable: {reason}")
        self.service = service


class VersionNotLoadedError(UnavailableError):
    """The serving instance that was asked has not loaded the version that the request names (HTTP 409)."""


class RefusedError(OpportuneError):
    """A cloud service refused for good; the message is its own reason."""

    def __init__(self, service: str, reason: str) -> None:
        super().__init__(f"{service} refused: {reason}")
        self.service = service


class CapacityError(OpportuneError):
    """A cloud has no machine of the kind that is asked for, now."""

    def __init__(self, service: str, reason: str) -> None:
        super().__init__(f"{service} has no capacity: {reason}")
        self.service = service


class ConflictError(OpportuneError):
    """A conditional write lost against another writer."""


class NotFoundError(OpportuneError):
    """A document or object does not exist."""


class ModelError(OpportuneError):
    """A model artifact is unusable."""


class IntegrityError(ModelError):
    """A file's content does not match its manifest."""

    def __init__(self, file: str, expected: str, actual: str) -> None:
        super().__init__(f"{file}: sha256 is {actual}, the manifest says {expected}; refusing to load it")


class NoEndpointError(OpportuneError):
    """No endpoint answered within the caller's deadline."""
