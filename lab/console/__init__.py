"""The lab's console: one web page that shows what an operator would see, and lets one break things.

``python -m lab.console DIR`` serves it on the plan's console port. What it shows of AWS it reads through boto3 (`lab.sight`); processes,
faults and pages it asks of the lab's control socket.
"""
