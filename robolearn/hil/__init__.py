"""A person in the loop: who is in control, what they did, and what is learned from it."""
