"""Batches to a gallery through an MQTT 5 broker."""

from reid_edge.upstream.mqtt.link import PORTS, Message, MqttLink
from reid_edge.upstream.mqtt.transport import NOT_AUTHORISED, MqttTransport, acknowledgements_topic, observations_topic

__all__ = [
    "NOT_AUTHORISED",
    "PORTS",
    "Message",
    "MqttLink",
    "MqttTransport",
    "acknowledgements_topic",
    "observations_topic",
]
