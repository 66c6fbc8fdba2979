//! One connection through rumqttc, of either version, as few events.
//!
//! Each connection has its own client and event loop: rumqttc's way to carry messages over to the next one
//! forgets them when the broker kept no session, so [`super::outbox`] does that.

use std::sync::Arc;
use std::time::Duration;

use rumqttc::v5;
use rumqttc::{TlsConfiguration, Transport};
use rustls::ClientConfig;

use super::cause::Cause;
use super::options::{Options, Qos, Version};
use super::outbox::Outgoing;

/// Requests that wait in rumqttc: the worker hands over one at a time.
const REQUESTS: usize = 1;
/// Unacknowledged messages that rumqttc allows; more than the outbox has in flight, so that ids never collide.
const INFLIGHT: u16 = 100;

/// What happened on a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Happened {
    /// The broker has accepted the connection. MQTT 5: it takes packets up to `limit` bytes, and wants pings as
    /// seldom as it says.
    Connected { limit: Option<usize>, keep_alive: Option<Duration> },
    /// A message is written, 0 for QoS 0.
    Written(u16),
    /// A subscription is written.
    Subscribed,
    /// The broker has acknowledged a message, or refused it.
    Acknowledged { packet: u16, taken: bool },
    /// A ping is written.
    Pinged,
    /// The broker has answered a ping.
    Ponged,
    /// A message came in.
    Received { topic: String, payload: Vec<u8> },
    /// Our goodbye is written.
    Left,
    /// Something of no concern here.
    Other,
}

/// What a connection is made of, again and again.
#[derive(Debug, Clone)]
pub(super) enum Plan {
    V3(Box<rumqttc::MqttOptions>, Duration),
    V5(Box<v5::MqttOptions>),
}

/// Hands requests over.
pub(super) enum Sender {
    V3(rumqttc::AsyncClient),
    V5(v5::AsyncClient),
}

/// Runs the connection.
pub(super) enum Runner {
    V3(Box<rumqttc::EventLoop>),
    V5(Box<v5::EventLoop>),
}

/// rumqttc has not taken a request.
#[derive(Debug)]
pub(super) struct NotTaken;

impl Plan {
    /// `availability` is the topic of the last will; without one there is none.
    pub(super) fn new(
        options: &Options,
        availability: Option<&str>,
        client_id: &str,
        tls: Option<Arc<ClientConfig>>,
        login: Option<(String, String)>,
    ) -> Self {
        let transport = match tls {
            Some(config) => Transport::tls_with_config(TlsConfiguration::Rustls(config)),
            None => Transport::tcp(),
        };
        let timeout = options.keep_alive.clamp(Duration::from_secs(2), Duration::from_secs(10));
        let (host, port) = (options.host.clone(), options.port);
        match options.version {
            Version::V3 => {
                let mut plan = rumqttc::MqttOptions::new(client_id, host, port);
                plan.set_keep_alive(options.keep_alive)
                    .set_max_packet_size(options.max_packet, options.max_packet)
                    .set_inflight(INFLIGHT)
                    .set_transport(transport);
                if let Some(topic) = availability {
                    plan.set_last_will(rumqttc::LastWill::new(topic, "offline", QOS_RETAINED, true));
                }
                if let Some((user, password)) = login {
                    plan.set_credentials(user, password);
                }
                Self::V3(Box::new(plan), timeout)
            }
            Version::V5 => {
                let mut plan = v5::MqttOptions::new(client_id, host, port);
                plan.set_keep_alive(options.keep_alive)
                    .set_max_packet_size(u32::try_from(options.max_packet).ok())
                    .set_outgoing_inflight_upper_limit(INFLIGHT)
                    .set_transport(transport)
                    .set_connection_timeout(timeout.as_secs());
                if let Some(topic) = availability {
                    let qos = v5::mqttbytes::QoS::AtLeastOnce;
                    plan.set_last_will(v5::mqttbytes::v5::LastWill::new(topic, "offline", qos, true, None));
                }
                if let Some((user, password)) = login {
                    plan.set_credentials(user, password);
                }
                Self::V5(Box::new(plan))
            }
        }
    }

    pub(super) fn open(&self) -> (Sender, Runner) {
        match self {
            Self::V3(plan, timeout) => {
                let (client, mut runner) = rumqttc::AsyncClient::new((**plan).clone(), REQUESTS);
                let mut network = rumqttc::NetworkOptions::new();
                network.set_connection_timeout(timeout.as_secs());
                network.set_tcp_nodelay(true);
                runner.set_network_options(network);
                (Sender::V3(client), Runner::V3(Box::new(runner)))
            }
            Self::V5(plan) => {
                let (client, runner) = v5::AsyncClient::new((**plan).clone(), REQUESTS);
                (Sender::V5(client), Runner::V5(Box::new(runner)))
            }
        }
    }
}

const QOS_RETAINED: rumqttc::QoS = rumqttc::QoS::AtLeastOnce;

impl Sender {
    pub(super) fn publish(&self, message: &Outgoing) -> Result<(), NotTaken> {
        let (topic, payload) = (&*message.topic, message.payload.to_vec());
        match self {
            Self::V3(client) => {
                let qos = match message.qos {
                    Qos::AtMostOnce => rumqttc::QoS::AtMostOnce,
                    Qos::AtLeastOnce => rumqttc::QoS::AtLeastOnce,
                };
                client.try_publish(topic, qos, message.retain, payload).map_err(|_| NotTaken)
            }
            Self::V5(client) => {
                let qos = match message.qos {
                    Qos::AtMostOnce => v5::mqttbytes::QoS::AtMostOnce,
                    Qos::AtLeastOnce => v5::mqttbytes::QoS::AtLeastOnce,
                };
                client.try_publish(topic, qos, message.retain, payload).map_err(|_| NotTaken)
            }
        }
    }

    pub(super) fn subscribe(&self, topic: &str) -> Result<(), NotTaken> {
        match self {
            Self::V3(client) => client.try_subscribe(topic, QOS_RETAINED).map_err(|_| NotTaken),
            Self::V5(client) => {
                client.try_subscribe(topic, v5::mqttbytes::QoS::AtLeastOnce).map_err(|_| NotTaken)
            }
        }
    }

    pub(super) fn leave(&self) -> Result<(), NotTaken> {
        match self {
            Self::V3(client) => client.try_disconnect().map_err(|_| NotTaken),
            Self::V5(client) => client.try_disconnect().map_err(|_| NotTaken),
        }
    }
}

impl Runner {
    /// Waits for what happens next. Must run to its end: rumqttc cannot be interrupted while it writes.
    pub(super) async fn next(&mut self) -> Result<Happened, Cause> {
        match self {
            Self::V3(runner) => Ok(of_v3(runner.poll().await?)),
            Self::V5(runner) => Ok(of_v5(runner.poll().await?)),
        }
    }
}

fn of_v3(event: rumqttc::Event) -> Happened {
    use rumqttc::{Event, Packet};
    match event {
        Event::Incoming(Packet::ConnAck(_)) => Happened::Connected { limit: None, keep_alive: None },
        Event::Incoming(Packet::PubAck(ack)) => Happened::Acknowledged { packet: ack.pkid, taken: true },
        Event::Incoming(Packet::PingResp) => Happened::Ponged,
        Event::Incoming(Packet::Publish(message)) => {
            Happened::Received { topic: message.topic, payload: message.payload.to_vec() }
        }
        Event::Outgoing(outgoing) => of_outgoing(&outgoing),
        Event::Incoming(_) => Happened::Other,
    }
}

fn of_v5(event: v5::Event) -> Happened {
    use v5::Event;
    use v5::mqttbytes::v5::{Packet, PubAckReason};
    match event {
        Event::Incoming(Packet::ConnAck(ack)) => {
            let said = ack.properties.as_ref();
            let keep_alive = said.and_then(|p| p.server_keep_alive);
            Happened::Connected {
                limit: said.and_then(|p| p.max_packet_size).map(|bytes| bytes as usize),
                keep_alive: keep_alive.map(|seconds| Duration::from_secs(seconds.into())),
            }
        }
        Event::Incoming(Packet::PubAck(ack)) => {
            let taken = matches!(ack.reason, PubAckReason::Success | PubAckReason::NoMatchingSubscribers);
            Happened::Acknowledged { packet: ack.pkid, taken }
        }
        Event::Incoming(Packet::PingResp(_)) => Happened::Ponged,
        Event::Incoming(Packet::Publish(message)) => Happened::Received {
            topic: String::from_utf8_lossy(&message.topic).into_owned(),
            payload: message.payload.to_vec(),
        },
        Event::Outgoing(outgoing) => of_outgoing(&outgoing),
        Event::Incoming(_) => Happened::Other,
    }
}

fn of_outgoing(outgoing: &rumqttc::Outgoing) -> Happened {
    use rumqttc::Outgoing;
    match outgoing {
        Outgoing::Publish(packet) => Happened::Written(*packet),
        Outgoing::Subscribe(_) => Happened::Subscribed,
        Outgoing::PingReq => Happened::Pinged,
        Outgoing::Disconnect => Happened::Left,
        _ => Happened::Other,
    }
}
