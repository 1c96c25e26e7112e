"""Sends a thousand labelled records."""

import json
import os
import random

from kafka import KafkaProducer

brokers = os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "localhost:9092").split(",")
topic = os.environ.get("DATA_TOPIC", "queueing.data")
producer = KafkaProducer(bootstrap_servers=brokers, acks="all")
for id in range(1000):
    features = [random.gauss(0, 1), random.gauss(0, 1)]
    label = int(features[0] + features[1] > 0)
    record = {"id": id, "features": features, "label": label}
    producer.send(topic, json.dumps(record).encode())
producer.flush()
