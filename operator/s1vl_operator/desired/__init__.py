"""What must exist for one S1VLDeployment: pure functions from (deployment, context) to manifests; no I/O, no clock."""
