"""What is trained, and what of it is published and when; knows no Kafka."""
