"""CloudFormation of the local AWS: templates become resources through the lab's own services.

A request is planned (`planning`: template, parameters, intrinsic functions), compared with what is (`changes`), and carried out in the
background (`operation`) by the resource types (`resources`), which read it back to find drift (`drift`).
"""

from lab.aws.services.cloudformation.service import Service

__all__ = ["Service"]
