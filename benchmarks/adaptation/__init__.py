"""How well the models adapt: through Kafka, without it, and beside other stream learners."""
