"""The custom resource: models, rules, conditions and the CRD made from them; imports nothing else of the operator."""
