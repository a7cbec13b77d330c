"""What the cluster shows, turned into conditions: pure functions over one snapshot."""

from s1vl_operator.observe.report import Report, TenantReport, parse_report
from s1vl_operator.observe.snapshot import Hindrance, Snapshot
from s1vl_operator.observe.status import invalid_status, status

__all__ = ["Hindrance", "Report", "Snapshot", "TenantReport", "invalid_status", "parse_report", "status"]
