//! Where each message is until the broker has it, and what became of the rest.
//!
//! A detection is in one place at any moment: the ring → handed to the link → in flight (QoS 1 until its
//! acknowledgement, QoS 0 until the broker answers anything sent later) → counted. A connection that dies puts
//! what was not written, and at QoS 1 what was not acknowledged, back to the ring's front. The MQTT library
//! never holds more than the one message handed to it plus what is in flight, and its own memory of them dies
//! with the connection: nothing is lost uncounted in it.
//!
//! Pure: no clock, no network; the worker tells it what happened.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::options::{Qos, Topics};

/// Messages of QoS 1 on their way at once.
const WINDOW: usize = 16;
/// Connections that may die with the same message at the head of those in flight. After them it is taken for
/// the cause (brokers close the connection on a packet that is too large for them) and given up.
const ATTEMPTS: u8 = 5;
/// The state's figures go out no more often.
const STATE_PERIOD: Duration = Duration::from_secs(1);
/// Bytes of a packet besides topic and payload: header, length, packet id, empty properties.
const OVERHEAD: usize = 10;

/// What became of detections. At any moment
/// `accepted = delivered + dropped + refused + unconfirmed + queued + in_flight`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Given to [`super::Mqtt::publish_detections`].
    pub accepted: u64,
    /// The broker has them: acknowledged (QoS 1), or it answered something sent later (QoS 0).
    pub delivered: u64,
    /// The oldest of a full outbox, and what was left at shutdown.
    pub dropped: u64,
    /// Larger than a packet may be, or refused by the broker.
    pub refused: u64,
    /// QoS 0, written to a connection that died before the broker answered: it may have them or not.
    pub unconfirmed: u64,
    /// QoS 1, sent once more after a connection died: receivers may see them twice. No part of the sum.
    pub resent: u64,
    /// Waiting.
    pub queued: u64,
    /// Sent, the broker's answer outstanding.
    pub in_flight: u64,
    /// Connections made so far.
    pub connections: u64,
    /// Whether there is one now.
    pub connected: bool,
}

/// A message for the link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outgoing {
    pub(super) topic: Arc<str>,
    pub(super) payload: Arc<[u8]>,
    pub(super) qos: Qos,
    pub(super) retain: bool,
}

/// A retained topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SlotId(usize);

/// The slot of `availability`, always the first: it goes out before all else.
const AVAILABILITY: SlotId = SlotId(0);

#[derive(Debug)]
struct Slot {
    topic: Arc<str>,
    /// The newest payload; none before the first.
    payload: Option<Arc<[u8]>>,
    /// Whether the broker lacks the newest.
    dirty: bool,
    /// Not before this moment.
    due: Option<Instant>,
    attempts: u8,
}

#[derive(Debug)]
struct Message {
    payload: Arc<[u8]>,
    attempts: u8,
}

#[derive(Debug)]
enum Item {
    Detections(Message),
    Retained(SlotId),
}

/// A message of QoS 1 without its acknowledgement.
#[derive(Debug)]
struct InFlight {
    packet: u16,
    item: Item,
    since: Instant,
    /// Messages of QoS 0 written before it: its acknowledgement is one of theirs.
    written_before: u64,
}

#[derive(Debug)]
pub(super) struct Outbox {
    capacity: usize,
    qos: Qos,
    /// Bytes of a packet at most: ours, or the broker's where that is less.
    limit: usize,
    own_limit: usize,
    detections: Arc<str>,
    ring: VecDeque<Message>,
    slots: Vec<Slot>,
    handed: Option<Item>,
    in_flight: VecDeque<InFlight>,
    /// Messages of QoS 0 written to this connection, and how many of them are known to have arrived.
    written: u64,
    answered: u64,
    /// `written` when the last ping left.
    pinged: u64,
    /// The slot of the state, once there was one; its presences; when it last went out.
    state: Option<SlotId>,
    present: Vec<bool>,
    state_sent: Option<Instant>,
    closing: bool,
    counts: Counts,
}

impl Outbox {
    pub(super) fn new(topics: &Topics, qos: Qos, capacity: usize, limit: usize) -> Self {
        let mut outbox = Self {
            capacity,
            qos,
            limit,
            own_limit: limit,
            detections: topics.detections.clone(),
            ring: VecDeque::with_capacity(capacity.min(1024)),
            slots: Vec::new(),
            handed: None,
            in_flight: VecDeque::with_capacity(WINDOW),
            written: 0,
            answered: 0,
            pinged: 0,
            state: None,
            present: Vec::new(),
            state_sent: None,
            closing: false,
            counts: Counts::default(),
        };
        let availability = outbox.slot(topics.availability.clone());
        outbox.replace(availability, b"online".to_vec());
        outbox
    }

    /// A new retained topic, without a payload yet.
    pub(super) fn slot(&mut self, topic: Arc<str>) -> SlotId {
        self.slots.push(Slot { topic, payload: None, dirty: false, due: None, attempts: 0 });
        SlotId(self.slots.len() - 1)
    }

    // What the pipeline does.

    /// Queues a detection line; drops the oldest of a full ring.
    pub(super) fn push(&mut self, payload: &[u8]) {
        self.counts.accepted += 1;
        if self.closing {
            self.counts.dropped += 1;
        } else if !self.fits(&self.detections, payload.len()) {
            self.counts.refused += 1;
        } else {
            self.ring.push_back(Message { payload: payload.into(), attempts: 0 });
            self.shed();
        }
    }

    /// Replaces a retained payload.
    pub(super) fn replace(&mut self, id: SlotId, payload: Vec<u8>) {
        if !self.fits(&self.slots[id.0].topic, payload.len()) {
            let topic = &self.slots[id.0].topic;
            log::warn!("{topic}: {} bytes are more than a packet may have; not published", payload.len());
            return;
        }
        let slot = &mut self.slots[id.0];
        if slot.payload.as_deref() != Some(&payload[..]) {
            slot.payload = Some(payload.into());
            slot.dirty = true;
            slot.attempts = 0;
        }
    }

    /// Replaces the state: at once where the presence of a class changed, else when its period is over.
    pub(super) fn set_state(&mut self, id: SlotId, payload: Vec<u8>, present: Vec<bool>) {
        self.state = Some(id);
        let due = self.state_sent.map(|sent| sent + STATE_PERIOD);
        let slot = &mut self.slots[id.0];
        let waiting_at_once = slot.dirty && slot.due.is_none();
        if present != self.present {
            self.present = present;
            slot.due = None;
        } else if !waiting_at_once {
            slot.due = due;
        }
        self.replace(id, payload);
    }

    pub(super) fn counts(&self) -> Counts {
        let detections = |item: &Item| u64::from(matches!(item, Item::Detections(_)));
        Counts {
            queued: self.ring.len() as u64 + self.handed.as_ref().map_or(0, detections),
            in_flight: self.in_flight.iter().map(|f| detections(&f.item)).sum::<u64>()
                + (self.written - self.answered),
            ..self.counts
        }
    }

    // What happens to the connection.

    /// A connection stands; the broker takes packets up to `limit` bytes. All retained topics go out again.
    pub(super) fn connected(&mut self, limit: Option<usize>) {
        self.counts.connections += 1;
        self.counts.connected = true;
        self.limit = limit.map_or(self.own_limit, |limit| limit.min(self.own_limit));
        self.republish();
    }

    /// All retained topics go out again.
    pub(super) fn republish(&mut self) {
        for slot in self.slots.iter_mut().filter(|s| s.payload.is_some() && s.attempts < ATTEMPTS) {
            slot.dirty = true;
        }
    }

    /// The next message, if one is due and there is room for it on the way. Until [`Self::written`] says that it
    /// is on its way there is no other.
    pub(super) fn next(&mut self, now: Instant) -> Option<Outgoing> {
        if self.handed.is_some() {
            return None;
        }
        let room = self.in_flight.len() < WINDOW;
        if room && let Some(id) = self.next_slot(now) {
            return Some(self.hand_slot(id, now));
        }
        if self.qos == Qos::AtLeastOnce && !room {
            return None;
        }
        while let Some(message) = self.ring.pop_front() {
            if !self.fits(&self.detections, message.payload.len()) {
                self.counts.refused += 1;
                continue;
            }
            let payload = Arc::clone(&message.payload);
            self.handed = Some(Item::Detections(message));
            return Some(Outgoing { topic: self.detections.clone(), payload, qos: self.qos, retain: false });
        }
        None
    }

    /// When the next retained payload comes due that is not due yet.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.slots.iter().filter(|slot| slot.dirty).filter_map(|slot| slot.due).min()
    }

    /// Since when the oldest message in flight waits for its acknowledgement.
    pub(super) fn waits_since(&self) -> Option<Instant> {
        self.in_flight.front().map(|oldest| oldest.since)
    }

    /// The link has written what was handed to it: as `packet`, 0 for QoS 0.
    pub(super) fn written(&mut self, packet: u16, now: Instant) {
        match self.handed.take() {
            None => {}
            Some(Item::Detections(_)) if packet == 0 => self.written += 1,
            Some(item) => {
                self.in_flight.push_back(InFlight { packet, item, since: now, written_before: self.written });
            }
        }
    }

    /// The link cannot take what was handed to it at all.
    pub(super) fn rejected(&mut self) {
        if let Some(item) = self.handed.take() {
            self.finish(item, false);
        }
    }

    /// The broker has acknowledged `packet`, or refused it.
    pub(super) fn acknowledged(&mut self, packet: u16, taken: bool) {
        let Some(at) = self.in_flight.iter().position(|f| f.packet == packet) else { return };
        if let Some(done) = self.in_flight.remove(at) {
            self.arrived(done.written_before);
            self.finish(done.item, taken);
        }
    }

    /// A ping has left.
    pub(super) fn pinged(&mut self) {
        self.pinged = self.written;
    }

    /// The broker has answered the ping: it has read all that was written before.
    pub(super) fn ponged(&mut self) {
        self.arrived(self.pinged);
    }

    /// The connection is gone, with what the broker had not acknowledged.
    pub(super) fn disconnected(&mut self) {
        self.counts.connected = false;
        self.limit = self.own_limit;
        self.counts.unconfirmed += self.written - self.answered;
        (self.written, self.answered, self.pinged) = (0, 0, 0);
        // Newest first, so that the ring's front has them in their order.
        if let Some(item) = self.handed.take() {
            self.put_back(item);
        }
        while let Some(InFlight { mut item, .. }) = self.in_flight.pop_back() {
            self.counts.resent += u64::from(matches!(item, Item::Detections(_)));
            if self.in_flight.is_empty() && self.attempts(&mut item) >= ATTEMPTS {
                self.give_up_on(item);
            } else {
                self.put_back(item);
            }
        }
        self.shed();
    }

    // The end.

    /// From now on nothing is accepted, and `offline` follows what waits.
    pub(super) fn close(&mut self) {
        self.closing = true;
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing
    }

    /// Whether all is sent and acknowledged, `offline` included.
    pub(super) fn is_done(&self) -> bool {
        let said = self.slots[AVAILABILITY.0].payload.as_deref() == Some(b"offline");
        let dirty = self.slots[AVAILABILITY.0].dirty;
        self.closing
            && said
            && !dirty
            && self.handed.is_none()
            && self.in_flight.is_empty()
            && self.ring.is_empty()
    }

    /// Counts what is still here as dropped.
    pub(super) fn give_up(&mut self) {
        self.disconnected();
        self.counts.dropped += self.ring.len() as u64;
        self.ring.clear();
    }

    // Helpers.

    fn fits(&self, topic: &str, payload: usize) -> bool {
        payload + topic.len() + OVERHEAD <= self.limit
    }

    fn shed(&mut self) {
        while self.ring.len() > self.capacity {
            self.ring.pop_front();
            self.counts.dropped += 1;
        }
    }

    fn next_slot(&mut self, now: Instant) -> Option<SlotId> {
        if self.closing && self.ring.is_empty() {
            self.replace(AVAILABILITY, b"offline".to_vec());
        }
        let due = |slot: &Slot| slot.dirty && (self.closing || slot.due.is_none_or(|due| due <= now));
        self.slots.iter().position(due).map(SlotId)
    }

    fn hand_slot(&mut self, id: SlotId, now: Instant) -> Outgoing {
        let slot = &mut self.slots[id.0];
        slot.dirty = false;
        if self.state == Some(id) {
            self.state_sent = Some(now);
        }
        self.handed = Some(Item::Retained(id));
        let payload = slot.payload.clone().unwrap_or_default();
        Outgoing { topic: slot.topic.clone(), payload, qos: Qos::AtLeastOnce, retain: true }
    }

    /// Messages of QoS 0 up to the `upto`th of this connection have arrived.
    fn arrived(&mut self, upto: u64) {
        if upto > self.answered {
            self.counts.delivered += upto - self.answered;
            self.answered = upto;
        }
    }

    fn finish(&mut self, item: Item, taken: bool) {
        match item {
            Item::Detections(_) if taken => self.counts.delivered += 1,
            Item::Detections(_) => self.counts.refused += 1,
            Item::Retained(id) if taken => self.slots[id.0].attempts = 0,
            Item::Retained(id) => {
                log::warn!("the broker refuses {}: check what this user may write", self.slots[id.0].topic);
            }
        }
    }

    fn attempts(&mut self, item: &mut Item) -> u8 {
        let attempts = match item {
            Item::Detections(message) => &mut message.attempts,
            Item::Retained(id) => &mut self.slots[id.0].attempts,
        };
        *attempts = attempts.saturating_add(1);
        *attempts
    }

    fn give_up_on(&mut self, item: Item) {
        let topic = match &item {
            Item::Detections(_) => &self.detections,
            Item::Retained(id) => &self.slots[id.0].topic,
        };
        log::warn!(
            "{topic}: {ATTEMPTS} connections ended at the same message; given up. Does the broker limit sizes?"
        );
        match item {
            Item::Detections(_) => self.counts.refused += 1,
            Item::Retained(id) => self.slots[id.0].dirty = false,
        }
    }

    fn put_back(&mut self, item: Item) {
        match item {
            Item::Detections(message) => self.ring.push_front(message),
            Item::Retained(id) => self.slots[id.0].dirty = true,
        }
    }
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;
