"""Actors on robots and one learner, as processes of their own, over gRPC.

An actor (`actor.ActorLink`) journals every record before it sends it, and keeps it until the learner
(`learner.LearnerServer`) has acknowledged it; the learner acknowledges what lies in its own journal. Each record has a
number, so that either end may be killed at any moment and nothing is lost or doubled. Weights go the other way.
Nothing here knows what a record holds: both ends state it (`records.About`) and refuse each other if they differ.
"""
