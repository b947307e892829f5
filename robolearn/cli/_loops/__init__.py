"""How `robolearn train` runs the algorithms: one file a kind of loop, registered by the name that a configuration's
`loop` has."""
