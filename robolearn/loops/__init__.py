"""Training and evaluation loops; they see environments only through `robolearn.env.Env`."""
