"""Sends a thousand customers with named features, and the schema that says what these are."""

import json
import os
import random

from kafka import KafkaProducer

brokers = os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "localhost:9092").split(",")
topic = os.environ.get("DATA_TOPIC", "queueing.data")
producer = KafkaProducer(bootstrap_servers=brokers, acks="all")

types = {"age": "number", "plan": "category", "active": "number", "since": "time"}
schema = {
    "feature_names": list(types),
    "types": list(types.values()),
    "label": "churned",
    "positive": "yes",
    "negative": "no",
}
producer.send(f"{topic}.schema", json.dumps(schema).encode(), key=b"schema", partition=0)

for id in range(1000):
    age = random.choice([*range(18, 90), None])
    plan = random.choice(["free", "basic", "pro"])
    active = random.random() < 0.7
    since = f"202{random.randint(0, 5)}-{random.randint(1, 12):02}-01"
    churned = plan == "free" or (not active and since > "2024")
    features = {"age": age, "plan": plan, "active": active, "since": since}
    record = {"id": id, "features": features, "label": "yes" if churned else "no"}
    producer.send(topic, json.dumps(record).encode())
producer.flush()
