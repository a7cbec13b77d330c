"""The s1vl operator: turns one S1VLDeployment into an engine, its tenants' sandboxes and an orchestrator."""
