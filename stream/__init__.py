"""What the three services share: the records on each topic, and how a service runs."""
