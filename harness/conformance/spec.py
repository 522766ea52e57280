"""The sections and versions of the specification."""

from __future__ import annotations

from dataclasses import dataclass

VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
_PAGE = "https://github.com/containernetworking/cni/blob/spec-v1.1.0/SPEC.md"


@dataclass(frozen=True)
class Section:
    """A part of the specification, by its title in version 1.1.0."""

    title: str
    anchor: str
    page: str = _PAGE

    @property
    def url(self) -> str:
        """The address of the text."""
        return f"{self.page}#{self.anchor}"


PROTOCOL = Section("Section 2: Execution Protocol", "section-2-execution-protocol")
PARAMETERS = Section("Section 2: Parameters", "parameters")
ERRORS = Section("Section 2: Errors", "errors")
ADD = Section("Section 2: ADD", "add-add-container-to-network-or-apply-modifications")
DEL = Section("Section 2: DEL", "del-remove-container-from-network-or-un-apply-modifications")
CHECK = Section("Section 2: CHECK", "check-check-containers-networking-is-as-expected")
STATUS = Section("Section 2: STATUS", "status-check-plugin-status")
VERSION = Section("Section 2: VERSION", "version-probe-plugin-version-support")
GC = Section("Section 2: GC", "gc-clean-up-any-stale-resources")
LIFECYCLE = Section("Section 3: Lifecycle & Ordering", "lifecycle--ordering")
REQUEST = Section(
    "Section 3: Deriving request configuration", "deriving-request-configuration-from-plugin-configuration"
)
RUNTIME_CONFIG = Section("Section 3: Deriving runtimeConfig", "deriving-runtimeconfig")
CONFIGURATION = Section("Section 1: Plugin configuration objects", "plugin-configuration-objects")
DELEGATION = Section("Section 4: Delegated plugin execution procedure", "delegated-plugin-execution-procedure")
RESULT = Section("Section 5: ADD Success", "add-success")
VERSION_RESULT = Section("Section 5: VERSION Success", "version-success")
ERROR_RESULT = Section("Section 5: Error", "error")
#: Expectations of Kubernetes and of users of several networks, which are not in the specification.
BEHIND = Section("Behind genie", "behind-genie", "https://github.com/genie-cni/genie/blob/main/docs/vendors.md")


def number(version: str) -> tuple[int, ...]:
    """A version as numbers that can be compared.

    Raises ValueError: it is not a version.
    """
    return tuple(int(part) for part in version.split("."))


def is_in(version: str, since: str, until: str) -> bool:
    """Whether a version is in a range, including both ends."""
    return number(since) <= number(version) <= number(until)
