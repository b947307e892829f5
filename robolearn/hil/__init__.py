"""A person beside the policy: interventions, and simulated people for studies of them."""
