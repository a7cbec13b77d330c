"""The s1vl orchestrator: runs the loop between the model and the tenant's sandbox and answers over HTTP."""
