"""The file ``env`` in the state directory: what a shell needs to use the lab's AWS with the stock AWS command line.

On AWS an endpoint follows from the Region. In the lab it has to be told, so the file wraps ``aws`` in a function that picks the endpoint
of the Region that the command names; commands copied from a page work as they stand.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from lab.plan import LabPlan


def shell_environment(plan: LabPlan, topology: Path) -> str:
    """The text of the file, for any POSIX shell."""
    first = next(iter(plan.regions))
    variables = plan.aws_environment("admin", first) | {"CROSSWATCH_LAB_DIR": plan.directory, "CROSSWATCH_TOPOLOGY": str(topology)}
    del variables["AWS_ENDPOINT_URL"]
    exports = "\n".join(f"export {key}={shlex.quote(value)}" for key, value in variables.items())
    cases = "\n".join(f"    {name}) _endpoint={region.aws_endpoint} ;;" for name, region in plan.regions.items())
    return f"""\
# The lab's AWS for this shell:  . {plan.directory}/env
{exports}
aws() {{
  _region=$AWS_REGION _previous=
  for _word in "$@"; do
    case $_previous in --region) _region=$_word ;; esac
    case $_word in --region=*) _region=${{_word#--region=}} ;; --endpoint-url*) _region=given ;; esac
    _previous=$_word
  done
  case $_region in
{cases}
    given) command aws "$@"; return ;;
    *) echo "aws: $_region is not a Region of this lab" >&2; return 2 ;;
  esac
  command aws --endpoint-url "$_endpoint" "$@"
}}
"""
