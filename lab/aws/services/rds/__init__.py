"""RDS, as far as Aurora global databases need it: clusters, roles, failover and switchover, snapshots, restores and events.

The databases are real (see `lab.data.aurora`); this is their control plane. Failover and switchover answer at once and go on in the
background, as on AWS: callers watch ``Status`` and ``IsWriter`` in DescribeGlobalClusters.
https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/aurora-global-database-disaster-recovery.html
"""

from lab.aws.services.rds.service import Service

__all__ = ["Service"]
