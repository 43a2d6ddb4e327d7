"""The contract "this fault -> that page, and no other", tried on a running lab: `lab matrix`.

expected.py   what each fault must lead to: the page, the tickets, what the probe sees
record.py     what one fault did lead to, as plain data
watch.py      reads it from outside: on-call receiver, canary logs, CloudWatch
verdict.py    compares the two; pure
vended.py     which fault moves which of AWS's own metrics, and whether it did
flow.py       the pass over the faults, and what it prints
pages.py      the tables in docs/lab, from the records
"""

from __future__ import annotations
